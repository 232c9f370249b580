"""Where a client is in a session, and how it goes on: the rules of docs/wire.md, whatever the wire."""

from dataclasses import dataclass, field
from typing import Any

from tests.chaos.history import OPENING, History
from tests.chaos.truth import row

MODEL = "hotspot"

OUTPUT = "hot_spot"

Message = dict[str, Any]


@dataclass
class Cursor:
    """One client's place in one session. `at`: the step that the session is at, as far as the client was told.

    `goal` is the step to end at, which is set when all is calm again; until then there is no end. `lost` says that the
    session is not there and has to be opened again.
    """

    history: History
    session: str
    at: int = 0
    goal: int | None = None
    lost: bool = True
    _answered: set[int] = field(default_factory=set)
    _highest: int = 0

    @property
    def next(self) -> int:
        """The step to send: the one after `at`, or `at` itself where its answer, which is kept, was missed."""
        return self.at if self.at and self.at not in self._answered else self.at + 1

    @property
    def done(self) -> bool:
        return self.goal is not None and not self.lost and self.next > self.goal

    def beyond(self, step: int) -> bool:
        """Return whether a step is none that is to be sent."""
        return self.goal is not None and step > self.goal

    def finish_after(self, steps: int) -> None:
        """End so many steps after the last one that was sent."""
        self.goal = max(self.next, self._highest) + steps

    def message(self, step: int) -> Message:
        return {"session_id": self.session, "x": row(self.session, step), "step": step}

    def open(self) -> int:
        return self.history.call(self.session, OPENING)

    def send(self, step: int) -> int:
        self._highest = max(self._highest, step)
        return self.history.call(self.session, step)

    def opened(self, call: int, step: int) -> None:
        """The service says where the session is."""
        self.history.position(self.session, call, step)
        self.at, self.lost = step, False

    def take(self, call: int, answer: Message) -> bool:
        """Take what the service said to a step; return whether it was an answer."""
        if (problem := answer.get("error")) is not None:
            self.refused(call, problem)
            return False
        outputs, replayed = answer["outputs"][OUTPUT], answer.get("replayed", False)
        self.history.ok(self.session, call, answer["step"], outputs, replayed=replayed)
        self.at = answer["step"]
        self._answered.add(self.at)
        return True

    def refused(self, call: int, problem: Message) -> None:
        """Take a problem: go on from `current_step` where it says so, and else send the same step again."""
        code = problem.get("code", "no problem")
        self.history.error(self.session, call, code, str(problem.get("detail", problem)))
        if code in ("step_gap", "step_conflict"):
            self.history.position(self.session, call, problem["current_step"])
            self.at = problem["current_step"]
        elif code == "session_not_found":
            self.lost = True

    def broken(self, call: int, code: str) -> None:
        """Nothing came to this call, and nothing will."""
        self.history.error(self.session, call, code)
