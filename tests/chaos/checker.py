"""Judges a history: no step lost, none applied twice, every answer bit-identical, nobody kept waiting.

Numbers alone do not prove this: a service that forgot a step and counted it all the same would number on. So every
answer is compared with that of an undisturbed run, whose later outputs depend on every step before.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tests.chaos.history import OPENING, Call, Error, Event, History, Ok, Position

Truth = Callable[[str, int], list[bytes]]
"""The outputs of a session's first so many steps, as an undisturbed run gives them."""

TIMEOUT = "timeout"
"""The code of a call that its client gave up at its deadline."""

RETRIED = frozenset(
    {
        "store_unavailable",
        "store_full",
        "outcome_unknown",
        "deadline_exceeded",
        "overloaded",
        "shutting_down",
        "step_gap",
        "step_conflict",
        "refused",
        "connection_lost",
        "closed_1001",
        "closed_1006",
        "closed_1012",
        "closed_1013",
        "closed_4409",
        "closed_4429",
    }
)
"""What docs/wire.md tells a client to come back after, and connections that cannot be made or break."""

FORGOTTEN = frozenset({"session_not_found", "closed_4404"})


@dataclass(frozen=True)
class Terms:
    """What a history is held to. `deadline_s`: the longest that a call may go without an answer or an error.

    `forgets`: Redis may lose what it had acknowledged, so that sessions may stand before steps that were answered.
    `silent`: who should answer may be stopped, so that a client may have to give up at its deadline. `errors`: the
    codes that clients may meet; `opening_errors`: further ones, but not for a step.
    """

    deadline_s: float = 10.0
    forgets: bool = False
    silent: bool = False
    errors: frozenset[str] = RETRIED
    opening_errors: frozenset[str] = frozenset()


class Violation(NamedTuple):
    """`kind`: ``lost``, ``doubled``, ``different``, ``overdue``, ``unanswered``, ``unexpected`` or ``invented``."""

    kind: str
    session: str
    what: str


@dataclass
class Report:
    """What a history shows.

    `steps`: distinct ones that were answered. `rewinds`: how often a session stood further back than its client had
    been told. `longest_s`: the longest wait for an answer or an error.
    """

    sessions: int = 0
    steps: int = 0
    replayed: int = 0
    rewinds: int = 0
    longest_s: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)


def check(history: History, truth: Truth, terms: Terms) -> Report:
    """Judge a history whose clients have ended."""
    by_session: dict[str, list[Event]] = {}
    for event in history.events:
        by_session.setdefault(event.session, []).append(event)
    report = Report(sessions=len(by_session))
    for session, events in by_session.items():
        _Session(session, terms, report).judge(events, truth)
    return report


class _Session:
    """The judgement of one session. `_told`: the highest step that its client knows to be consumed."""

    def __init__(self, session: str, terms: Terms, report: Report) -> None:
        self._session = session
        self._terms = terms
        self._report = report
        self._open: dict[int, Call] = {}
        self._sent = 0
        self._told = 0
        self._fresh: set[int] = set()
        self._answers: list[Ok] = []
        self._final: Position | None = None

    def judge(self, events: list[Event], truth: Truth) -> None:
        for event in events:
            match event:
                case Call():
                    self._open[event.call] = event
                    self._sent = max(self._sent, event.step)
                case Ok():
                    self._answered(event)
                case Error():
                    self._failed(event)
                case Position():
                    self._stands(event)
        for call in self._open.values():
            self._object("unanswered", f"{_named(call.step)} never got an answer or an error")
        self._compare(truth(self._session, self._sent))
        self._ended()

    def _answered(self, ok: Ok) -> None:
        call = self._end(ok)
        if call is None or call.step != ok.step:
            asked = "nothing" if call is None else _named(call.step)
            self._object("invented", f"{_named(ok.step)} was answered where {asked} was asked")
        self._answers.append(ok)
        self._told = max(self._told, ok.step)
        self._report.replayed += ok.replayed
        if ok.replayed:
            return
        if ok.step in self._fresh:
            self._object("doubled", f"{_named(ok.step)} was applied twice: answered anew, and not as a replay")
        self._fresh.add(ok.step)

    def _failed(self, error: Error) -> None:
        call = self._end(error)
        self._report.errors[error.code] += 1
        asked = _named(call.step) if call else "nothing"
        excused = self._terms.errors | (FORGOTTEN if self._terms.forgets else frozenset())
        if call is not None and call.step == OPENING:
            excused |= self._terms.opening_errors
        if error.code == TIMEOUT:
            if not self._terms.silent:
                self._object("overdue", f"{asked} was given up at the deadline")
        elif error.code not in excused:
            self._object("unexpected", f"{asked}: {error.code} {error.detail}".rstrip())

    def _stands(self, position: Position) -> None:
        self._end(position)
        if position.step > self._sent:
            self._object("doubled", f"it is at step {position.step}, and only {self._sent} were sent")
        if position.step < self._told:
            self._report.rewinds += 1
            if not self._terms.forgets:
                self._object("lost", f"it is at step {position.step} after step {self._told} was answered")
            self._fresh = {step for step in self._fresh if step <= position.step}
        self._told = position.step
        if position.final:
            self._final = position

    def _end(self, event: Ok | Error | Position) -> Call | None:
        call = self._open.pop(event.call, None)
        if call is not None:
            waited = event.at - call.at
            self._report.longest_s = max(self._report.longest_s, waited)
            # A client that gives up does so at the deadline, and then has to be told by its own clock.
            if waited > self._terms.deadline_s and not (isinstance(event, Error) and event.code == TIMEOUT):
                self._object("overdue", f"{_named(call.step)} waited {waited:.1f} s")
        return call

    def _compare(self, truth: list[bytes]) -> None:
        self._report.steps += len({ok.step for ok in self._answers})
        for ok in self._answers:
            if not 1 <= ok.step <= len(truth):
                self._object("invented", f"{_named(ok.step)} was answered, and {len(truth)} were sent")
            elif ok.outputs != truth[ok.step - 1]:
                self._object("different", f"{_named(ok.step)}: {_difference(ok, truth)}")
                return  # all that follow are, too

    def _ended(self) -> None:
        if self._final is None:
            self._object("unanswered", "nobody saw where it ended")
        elif self._final.step != self._sent:
            self._object("lost", f"it ended at step {self._final.step} of {self._sent}")
        elif self._sent and self._sent not in {ok.step for ok in self._answers}:
            self._object("unanswered", f"its last {_named(self._sent)} has no answer")

    def _object(self, kind: str, what: str) -> None:
        self._report.violations.append(Violation(kind, self._session, what))


def _named(step: int) -> str:
    return "the opening" if step == OPENING else f"step {step}"


def _difference(ok: Ok, truth: list[bytes]) -> str:
    expected = truth[ok.step - 1]
    if ok.outputs in truth:
        return f"it has the answer of step {truth.index(ok.outputs) + 1}"
    if len(ok.outputs) != len(expected):
        return f"{len(ok.outputs)} bytes instead of {len(expected)}"
    ours, theirs = np.frombuffer(ok.outputs, np.uint32), np.frombuffer(expected, np.uint32)
    return f"{np.count_nonzero(ours != theirs)} of {len(ours)} numbers are not those of the undisturbed run"
