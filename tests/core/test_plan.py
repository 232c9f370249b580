"""Which steps of a turn are run, replayed or refused: the table of exactly-once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.columns import Layout
from service.core.errors import ConveyorError, InvalidTimestep, ReplayUnavailable, StepConflict, StepGap
from service.core.plan import Window, plan, straight
from service.core.session import ModelRef, Result, Session, Timestep
from service.core.spec import Axis, Feature, ModelSpec, Output, State

SPEC = ModelSpec(
    features=(Feature("load"), Feature("ambient")),
    outputs=(Output("oil", "forecast", axes=(Axis("horizon", (1, 2, 3)),)),),
    states=(State("hidden", "h", "next_h", (1, 4), 1),),
)
LAYOUT = Layout(ModelRef("m", "1", bytes(8)), SPEC)
LAST = np.array([1, 2, 3], np.float32)


def session(step: int) -> Session:
    return Session(ModelRef("m", "1", bytes(8)), 5, step, 0, 0, 60, bytes(16), LAST.tobytes() if step else b"")


def one(step: int | None = None, *, every: bool = False) -> Timestep:
    return Timestep([1.0, 2.0], 1, step, every)


def chunk(length: int, step: int | None = None, *, every: bool = False) -> Timestep:
    return Timestep([[1.0, 2.0]] * length, length, step, every)


def shape(outcome: object) -> object:
    return type(outcome) if isinstance(outcome, ConveyorError | Result) else outcome


@pytest.mark.parametrize(
    ("at", "steps", "expected"),
    [
        (0, [one()], [Window(0, 1)]),
        (0, [one(1)], [Window(0, 1)]),
        (7, [one(8)], [Window(0, 1)]),
        (7, [one(7)], [Result]),
        (7, [one(6)], [StepConflict]),
        (7, [one(1)], [StepConflict]),
        (7, [one(9)], [StepGap]),
        (0, [one(2)], [StepGap]),
        (7, [one(), one(), one()], [Window(0, 1), Window(1, 2), Window(2, 3)]),
        (7, [one(8), one(8)], [Window(0, 1), Window(0, 1, replayed=True)]),
        (7, [one(7), one(8), one(9)], [Result, Window(0, 1), Window(1, 2)]),
        (7, [one(8), one(10), one(9)], [Window(0, 1), StepGap, Window(1, 2)]),
        (7, [one(8), one(7)], [Window(0, 1), StepConflict]),
        (0, [chunk(4)], [Window(0, 4)]),
        (7, [chunk(4, 8)], [Window(0, 4)]),
        (7, [chunk(4, 4)], [Result]),
        (7, [chunk(4, 5)], [StepConflict]),
        (7, [chunk(4, 7)], [StepConflict]),
        (7, [chunk(4, 4, every=True)], [ReplayUnavailable]),
        (7, [chunk(4, 8, every=True), chunk(4, 8, every=True)], [Window(0, 4), Window(0, 4, replayed=True)]),
        (7, [one(8), chunk(2, 7)], [Window(0, 1), Window(0, 1, replayed=True)]),
        (7, [one(8), chunk(2, 7, every=True)], [Window(0, 1), ReplayUnavailable]),
        (7, [chunk(3), one(11)], [Window(0, 3), Window(3, 4)]),
        (0, [Timestep([1.0]), one()], [InvalidTimestep, Window(0, 1)]),
    ],
)
def test_steps_are_decided_by_their_numbers(at: int, steps: list[Timestep], expected: list[object]) -> None:
    planned = plan(session(at), SPEC, steps)
    assert [shape(outcome) for outcome in planned.outcomes] == expected
    run = max((outcome.stop for outcome in planned.outcomes if isinstance(outcome, Window)), default=0)
    assert planned.length == run
    assert len(planned.x) == run * SPEC.width * 4


def test_a_replay_carries_the_stored_outputs() -> None:
    (single,) = plan(session(7), SPEC, [one(7)]).outcomes
    (every,) = plan(session(7), SPEC, [one(7, every=True)]).outcomes
    assert isinstance(single, Result)
    assert isinstance(every, Result)
    assert single.replayed
    assert single.step == 7
    np.testing.assert_array_equal(single.outputs["oil"], LAST)
    np.testing.assert_array_equal(every.outputs["oil"], LAST[None])


@pytest.mark.parametrize("step", [one(9), one(6), chunk(2, 3, every=True)])
def test_a_refusal_says_where_the_session_is(step: Timestep) -> None:
    (outcome,) = plan(session(7 if step.length == 1 else 4), SPEC, [step]).outcomes
    assert isinstance(outcome, ConveyorError)
    assert outcome.fields["current_step"] == (7 if step.length == 1 else 4)


NUMBERS = st.one_of(
    st.floats(-100, 100),
    st.sampled_from([1e18, 1.1e18, -1e19, 1e39, float("nan"), float("inf"), 3, "2", None]),
)
ROW = st.lists(NUMBERS, min_size=2, max_size=2)
VALUES = st.one_of(
    ROW,
    st.lists(NUMBERS, max_size=3),
    st.lists(ROW, min_size=1, max_size=3),
    st.fixed_dictionaries({"ambient": NUMBERS, "load": NUMBERS}),
    st.dictionaries(st.sampled_from(["load", "ambient", "oil"]), NUMBERS),
)
TIMESTEPS = st.builds(
    lambda values, step, every: Timestep(
        values, len(values) if type(values) is list and values and type(values[0]) is list else 1, step, every
    ),
    VALUES,
    st.one_of(st.none(), st.integers(6, 12)),
    st.booleans(),
)


@given(st.lists(TIMESTEPS, min_size=1, max_size=4))
def test_a_turn_that_is_planned_straight_is_planned_the_same(steps: list[Timestep]) -> None:
    straightly = straight(7, LAYOUT, steps)
    planned = plan(session(7), SPEC, steps)
    if straightly is not None:
        assert straightly.x == planned.x
        assert straightly.length == planned.length
        assert list(straightly.outcomes) == planned.outcomes


@pytest.mark.parametrize(
    "steps",
    [
        [one()],
        [one(8)],
        [Timestep({"ambient": 2.0, "load": 1.0})],
        [chunk(3)],
        [chunk(1, 8)],
        [one(8), chunk(2), one(11)],
    ],
)
def test_steps_that_come_next_are_planned_straight(steps: list[Timestep]) -> None:
    assert straight(7, LAYOUT, steps) is not None


@pytest.mark.parametrize(
    "steps",
    [[one(7)], [one(), one(10)], [one(9)], [chunk(2, 7)], [Timestep([1.0])], [one(), Timestep([1.0, float("nan")])]],
)
def test_what_no_commit_would_prove_is_not_decided_on_a_remembered_record(steps: list[Timestep]) -> None:
    assert straight(7, LAYOUT, steps) is None
