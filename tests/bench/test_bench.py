"""The benchmark measures what it says: real servers, every scenario, answers verified. No speed is asserted."""

from collections.abc import Iterator

import pytest

pytest.importorskip("picows", reason="needs the bench extra")
pytest.importorskip("psutil", reason="needs the bench extra")

import msgspec

from bench.load import Sample
from bench.measure import Measurement, measure
from bench.pages import between_markers, markers
from bench.reference import rows, verify
from bench.report import markdown, tables
from bench.scenarios import CONVEYOR, ECHO, NAIVE, SCENARIOS, Scenario
from bench.servers import Servers, running
from bench.summary import Failure, Round, Run, cells, ratios
from bench.traffic import row_at, senders

CELLS = [(scenario, subject) for scenario in SCENARIOS for subject in scenario.subjects]


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with running() as started:
        yield started


def small(scenario: Scenario) -> Scenario:
    """The same way to send timesteps, with less of everything."""
    return msgspec.structs.replace(
        scenario,
        connections=min(scenario.connections, 4),
        sessions=min(scenario.sessions, 8),
        timesteps=min(scenario.timesteps, 64),
    )


@pytest.mark.parametrize(("scenario", "subject"), CELLS, ids=[f"{s.name}-{subject}" for s, subject in CELLS])
def test_every_cell_is_measured_and_its_answers_are_right(servers: Servers, scenario: Scenario, subject: str) -> None:
    measured = measure(small(scenario), subject, servers, warm_up_s=0.1, seconds=0.3)
    assert measured.steps_per_s > 0
    assert 0 < measured.p50_ms <= measured.p99_ms <= measured.p999_ms
    assert measured.server_rss_mb > 0
    assert (measured.verified > 0) == (subject != ECHO)


def test_an_error_is_a_failure_and_not_a_fast_answer(servers: Servers) -> None:
    too_long = Scenario("too-long", "", "http", 1, timesteps=1000)
    with pytest.raises(RuntimeError, match="the server answered 422"):
        measure(too_long, CONVEYOR, servers, warm_up_s=0.1, seconds=0.3)


def test_an_answer_that_is_no_forecast_is_a_failure() -> None:
    with pytest.raises(RuntimeError, match="an answer cannot be read"):
        verify(Scenario("one", "", "http", 1), "p", rows(), [Sample(0, 0, b'{"outputs":{}}')])


def test_a_wrong_forecast_is_a_failure() -> None:
    wrong = b'{"outputs":{"hot_spot":%s}}' % str([[60.0, 61.0, 62.0]] * 24).encode()
    with pytest.raises(RuntimeError, match="message 0 of p-0 got a wrong forecast"):
        verify(Scenario("one", "", "http", 1), "p", rows(), [Sample(0, 0, wrong)])


def test_a_cycle_of_messages_is_the_history_that_is_verified() -> None:
    scenario = Scenario("frames", "", "websocket", 2, sessions=3, timesteps=2)
    sent = rows()
    second = senders(scenario, "p", sent)[1]
    assert second.ids == ["p-3", "p-4", "p-5"]
    steps = msgspec.json.decode(second.messages[-1])
    last = 2 * len(sent) - 1
    assert steps[2] == {"session_id": "p-5", "x": [row_at(sent, 5, last - 1), row_at(sent, 5, last)]}
    assert row_at(sent, 5, last + 1) == row_at(sent, 5, 0)


def test_ratios_are_taken_within_rounds_and_missing_cells_left_out() -> None:
    def cell(subject: str, speed: float) -> Measurement:
        return Measurement("rest-64", "REST", subject, speed, 1, 2, 3, 1 / speed, 0, 100, 10, 0.1, 1000, 7)

    rounds = [
        [cell(CONVEYOR, 300), cell(NAIVE, 100)],
        [cell(CONVEYOR, 100), cell(NAIVE, 50)],
        [cell(CONVEYOR, 400), cell(NAIVE, 100)],
        [cell(CONVEYOR, 900)],
    ]
    failures = [Failure("rest-64", NAIVE, 4, "gone")]
    run = Run("python -m bench", {"processor": "any"}, 1.0, [Round(measured) for measured in rounds], failures)
    (ratio,) = ratios(run)
    assert ratio.figure == (3, 2, 4)
    assert ratio.processor == pytest.approx((3, 2, 4))
    assert [(c.subject, c.steps_per_s, c.verified) for c in cells(run)] == [(CONVEYOR, 350, 28), (NAIVE, 100, 21)]

    begin, end = markers("bench")
    text = between_markers(f"before\n{begin}\nold\n{end}\nafter\n", "bench", markdown(run, tables(run)))
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| REST-64 / naive | ≥ 3.5 | ≥ 7 | 3.00 (2.00 to 4.00) | **missed** |" in text
    assert "| rest-64 of naive, round 4 | gone |" in text
