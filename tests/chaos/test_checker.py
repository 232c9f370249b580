"""The checker sees what it is there for: each history here is good but for one thing, to which it objects."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.chaos.checker import TIMEOUT, Report, Terms, check
from tests.chaos.history import History
from tests.chaos.truth import truth

SESSION = "chaos-1"
TRUTH = truth(SESSION, 8)


class Teller:
    """Writes histories: each call takes a tenth of a second, unless told otherwise."""

    def __init__(self) -> None:
        self.now = 0.0
        self.history = History(lambda: self.now)

    def opens(self, at: int = 0, *, final: bool = False) -> None:
        call = self.history.call(SESSION)
        self.now += 0.1
        self.history.position(SESSION, call, at, final=final)

    def answers(
        self, step: int, outputs: bytes | None = None, *, replayed: bool = False, after_s: float = 0.1, asked: int = 0
    ) -> None:
        call = self.history.call(SESSION, asked or step)
        self.now += after_s
        numbers = np.frombuffer(TRUTH[step - 1] if outputs is None else outputs, np.float32)
        self.history.ok(SESSION, call, step, numbers, replayed=replayed)

    def fails(self, step: int, code: str) -> None:
        call = self.history.call(SESSION, step)
        self.now += 0.1
        self.history.error(SESSION, call, code)

    def judged(self, **terms: object) -> Report:
        return check(self.history, lambda session, steps: TRUTH[:steps], Terms(deadline_s=2, **terms))  # type: ignore[arg-type]

    def kinds(self, **terms: object) -> list[str]:
        return [violation.kind for violation in self.judged(**terms).violations]


def told(tell: Callable[[Teller], object], last: int = 4) -> Teller:
    """A history of steps 1 and 2, what `tell` adds, and an end at step `last`."""
    teller = Teller()
    teller.opens()
    teller.answers(1)
    teller.answers(2)
    tell(teller)
    teller.opens(last, final=True)
    return teller


def and_on(teller: Teller) -> None:
    teller.answers(3)
    teller.answers(4)


def test_a_good_history_is_good() -> None:
    def faults(teller: Teller) -> None:
        teller.fails(3, "outcome_unknown")
        teller.answers(3, replayed=True)
        teller.fails(4, "closed_1006")
        teller.opens(4)
        teller.answers(4, replayed=True)

    report = told(faults).judged()
    assert report.violations == []
    assert (report.sessions, report.steps, report.replayed, report.rewinds) == (1, 4, 2, 0)
    assert report.errors == {"outcome_unknown": 1, "closed_1006": 1}
    assert report.longest_s == pytest.approx(0.1)


def test_a_lost_step_shows_in_where_the_session_is() -> None:
    def rewound(teller: Teller) -> None:
        teller.fails(3, "connection_lost")
        teller.opens(1)
        teller.answers(2)
        and_on(teller)

    assert told(rewound).kinds() == ["lost"]
    assert told(rewound).kinds(forgets=True) == []
    assert told(rewound).judged(forgets=True).rewinds == 1
    assert told(and_on, last=3).kinds(forgets=True) == ["lost"], "and nobody replayed it"


def test_a_step_that_is_counted_and_was_never_consumed_shows_in_the_answers() -> None:
    without_two = [TRUTH[0], *truth("chaos-2", 8)[1:]]
    assert told(lambda teller: (teller.answers(3, without_two[2]), teller.answers(4, without_two[3]))).kinds() == [
        "different"
    ]


def test_a_doubled_step_is_seen() -> None:
    def answered_anew(teller: Teller) -> None:
        teller.answers(3)
        teller.answers(3)
        teller.answers(4)

    assert told(answered_anew).kinds() == ["doubled"]

    def gone_ahead(teller: Teller) -> None:
        teller.fails(3, "outcome_unknown")
        teller.opens(4)
        teller.opens(2)
        and_on(teller)

    assert "doubled" in told(gone_ahead).kinds()


def test_an_answer_that_is_one_bit_different_is_seen() -> None:
    bits = bytearray(TRUTH[2])
    bits[40] ^= 1
    judged = told(lambda teller: (teller.answers(3, bytes(bits)), teller.answers(4))).judged()
    assert [violation.kind for violation in judged.violations] == ["different"]
    assert judged.violations[0].what == "step 3: 1 of 72 numbers are not those of the undisturbed run"


def test_the_answer_of_another_step_is_seen() -> None:
    judged = told(lambda teller: (teller.answers(3, TRUTH[1]), teller.answers(4))).judged()
    assert judged.violations[0].what == "step 3: it has the answer of step 2"
    assert "invented" in told(lambda teller: (teller.answers(4, asked=3), teller.answers(4))).kinds()


def test_waiting_beyond_the_deadline_is_seen() -> None:
    assert told(lambda teller: (teller.answers(3, after_s=2.1), teller.answers(4))).kinds() == ["overdue"]

    def gave_up(teller: Teller) -> None:
        teller.fails(3, TIMEOUT)
        and_on(teller)

    assert told(gave_up).kinds() == ["overdue"]
    assert told(gave_up).kinds(silent=True) == []


def test_a_call_without_an_end_is_seen() -> None:
    def unheard(teller: Teller) -> None:
        teller.history.call(SESSION, 3)
        and_on(teller)

    assert told(unheard).kinds() == ["unanswered"]
    assert told(lambda teller: teller.answers(3), last=3).kinds() == []
    assert told(lambda teller: teller.fails(3, "outcome_unknown"), last=3).kinds() == ["unanswered"]


@pytest.mark.parametrize("code", ["internal_error", "http_500", "session_not_found", "invalid_record", "closed_1011"])
def test_an_error_that_no_fault_excuses_is_seen(code: str) -> None:
    def failed(teller: Teller) -> None:
        teller.fails(3, code)
        and_on(teller)

    assert told(failed).kinds() == ["unexpected"]
    assert told(failed).kinds(errors=frozenset({code})) == []


def test_where_nobody_looked_at_the_end_nothing_is_proven() -> None:
    teller = Teller()
    teller.opens()
    teller.answers(1)
    assert teller.kinds() == ["unanswered"]
