"""What clients asked and were told, and when: the record that the checker judges afterwards."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

OPENING = 0
"""The step of a call that asks where a session is, and opens it where it is not there."""


@dataclass(frozen=True, slots=True)
class Call:
    """A client sends a step, numbered, or opens its session. `call` tells calls apart; `at` is in seconds."""

    at: float
    session: str
    call: int
    step: int


@dataclass(frozen=True, slots=True)
class Ok:
    """A step was answered. `outputs` are the bytes of its float32 numbers."""

    at: float
    session: str
    call: int
    step: int
    outputs: bytes
    replayed: bool


@dataclass(frozen=True, slots=True)
class Error:
    """A call ended without an answer. `code` is the service's, or says how the connection ended."""

    at: float
    session: str
    call: int
    code: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Position:
    """The service says at which step a session is: in a greeting, in a refusal, or (`final`) when all is over."""

    at: float
    session: str
    call: int
    step: int
    final: bool = False


Event = Call | Ok | Error | Position


class History:
    """All events in the order in which they happened. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.events: list[Event] = []
        self._clock = clock
        self._calls = 0

    def call(self, session: str, step: int = OPENING) -> int:
        """Note that a step is sent; return the call's number, under which its end is noted."""
        self._calls += 1
        self.events.append(Call(self._clock(), session, self._calls, step))
        return self._calls

    def ok(self, session: str, call: int, step: int, outputs: object, *, replayed: bool) -> None:
        """Note an answer; `outputs` are its numbers, nested in any way."""
        numbers = np.asarray(outputs, np.float32).tobytes()
        self.events.append(Ok(self._clock(), session, call, step, numbers, replayed))

    def error(self, session: str, call: int, code: str, detail: str = "") -> None:
        self.events.append(Error(self._clock(), session, call, code, detail))

    def position(self, session: str, call: int, step: int, *, final: bool = False) -> None:
        self.events.append(Position(self._clock(), session, call, step, final))
