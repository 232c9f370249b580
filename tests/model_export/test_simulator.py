"""The simulated transformer obeys the equations of IEC 60076-7."""

import numpy as np
import pytest

from model_export.errors import InputError
from model_export.simulator import ONAF, ONAN, UNITS, Cooling, Thermal, Transformer, simulate

# One stage, without thermostat, rated for the nameplate's current.
FIXED = Cooling(1.0, 50.0, 20.0, 180.0, 8.0, -np.inf, -np.inf)
SIMPLE = Transformer(stages=(FIXED,))


def run(transformer: Transformer, state: Thermal, load: float, ambient: float, minutes: int, step: float) -> Thermal:
    for _ in range(int(minutes / step)):
        state = transformer.step(state, load, ambient, step)
    return state


def test_rated_load_settles_at_the_rated_rises() -> None:
    state = run(SIMPLE, Thermal(20.0, 0.0, 0.0), load=1.0, ambient=20.0, minutes=60 * 48, step=15)
    assert state.top_oil == pytest.approx(20 + 50)
    assert state.hot_spot == pytest.approx(20 + 50 + 20)


@pytest.mark.parametrize("load", [0.0, 0.5, 1.3])
def test_steady_state_is_the_closed_form(load: float) -> None:
    state = run(SIMPLE, Thermal(35.0, 9.0, 1.0), load, ambient=10.0, minutes=60 * 72, step=5)
    top_oil = 10.0 + 50.0 * ((1 + 6.0 * load**2) / (1 + 6.0)) ** 0.8
    assert state.top_oil == pytest.approx(top_oil)
    assert state.hot_spot == pytest.approx(top_oil + 20.0 * load**1.3)
    settled = SIMPLE.settled(load, 10.0)
    assert (settled.top_oil, settled.hot_spot) == pytest.approx((state.top_oil, state.hot_spot))


def test_the_step_length_does_not_matter() -> None:
    start = Thermal(30.0, 5.0, 2.0)
    fine, coarse = (run(SIMPLE, start, 1.1, 25.0, minutes=120, step=step) for step in (0.25, 60))
    assert (fine.top_oil, fine.fast, fine.slow) == pytest.approx((coarse.top_oil, coarse.fast, coarse.slow))


def test_the_oil_covers_63_percent_of_a_step_in_k11_tau() -> None:
    start = SIMPLE.settled(0.5, 20.0)
    after = SIMPLE.step(start, 1.0, 20.0, minutes=0.5 * 180.0)
    covered = (after.top_oil - start.top_oil) / (SIMPLE.settled(1.0, 20.0).top_oil - start.top_oil)
    assert covered == pytest.approx(1 - np.exp(-1))


def test_the_hot_spot_overshoots_the_oil_after_a_step_of_the_load() -> None:
    state, gradients = SIMPLE.settled(0.5, 20.0), []
    for _ in range(200):
        state = SIMPLE.step(state, 1.0, 20.0, 5)
        gradients.append(state.hot_spot - state.top_oil)
    assert max(gradients) > 1.2 * gradients[-1]
    assert gradients[-1] == pytest.approx(20.0, rel=1e-3)


def test_the_excess_heat_of_an_overload_is_its_excess_rise_times_its_duration() -> None:
    base, step, duration = SIMPLE.settled(0.6, 20.0), 1.0, 180
    state, excess = base, 0.0
    for minute in range(60 * 60):
        state = SIMPLE.step(state, 1.4 if minute < duration else 0.6, 20.0, step)
        excess += (state.top_oil - base.top_oil) * step
    expected = (SIMPLE.oil_rise(1.4, 0) - SIMPLE.oil_rise(0.6, 0)) * duration
    assert excess == pytest.approx(expected, rel=1e-6)


def test_cooling_stages_switch_with_hysteresis() -> None:
    transformer = Transformer()
    between = (transformer.stages[1].on_above + transformer.stages[1].off_below) / 2

    def stage_at(top_oil: float, stage: int) -> int:
        return transformer.step(Thermal(top_oil, 0.0, 0.0, stage), 0.0, top_oil, 1e-9).stage

    assert (stage_at(between, 0), stage_at(between, 1)) == (0, 1)
    assert (stage_at(56.0, 0), stage_at(47.0, 1)) == (1, 0)
    assert (stage_at(64.0, 1), stage_at(55.0, 2), stage_at(99.0, 2)) == (2, 1, 2)


def test_fans_cool() -> None:
    transformer = Transformer()
    assert ONAF.rating > ONAN.rating
    assert transformer.oil_rise(0.9, 2) < transformer.oil_rise(0.9, 1) < transformer.oil_rise(0.9, 0)


def test_the_same_seed_gives_the_same_numbers_and_another_does_not() -> None:
    one, two, other = simulate(10, seed=1), simulate(10, seed=1), simulate(10, seed=2)
    assert list(one.columns) == list(UNITS)
    assert all(np.array_equal(one.columns[name], two.columns[name]) for name in UNITS)
    assert not np.array_equal(one.columns["load"], other.columns["load"])
    assert one.times == two.times


def test_a_year_looks_like_one() -> None:
    columns = simulate(365, seed=7).columns
    assert all(np.isfinite(values).all() and len(values) == 365 * 96 for values in columns.values())
    days = columns["ambient"].reshape(365, 96)
    assert days[182:212].mean() - days[:30].mean() > 12
    assert columns["load"][columns["weekend"] == 1].mean() < 0.95 * columns["load"][columns["weekend"] == 0].mean()
    assert columns["load"].max() > 1.0 > np.quantile(columns["load"], 0.99)
    assert {0.0, 1.0, 2.0} == set(columns["cooling_stage"])
    assert (columns["hot_spot"] > columns["ambient"]).all()
    # Monday, 2 January: the sixth and seventh days are the weekend.
    assert columns["weekend"].reshape(365, 96)[:8, 0].tolist() == [0, 0, 0, 0, 0, 1, 1, 0]


def test_a_life_of_no_days_is_refused() -> None:
    with pytest.raises(InputError, match="days: 0 is below 1"):
        simulate(0, seed=1)
