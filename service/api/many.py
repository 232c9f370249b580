"""The steps of a message that carries many: begun together, answered together, each with an end of its own."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

from service.abreast import FEWEST
from service.api.dependencies import Limits, Services
from service.api.encodings import Encoding
from service.api.messages import Addressed, rest_answer, rest_error, single_timesteps
from service.api.moulds import Timesteps
from service.core.errors import ConveyorError, InvalidRequest, ShuttingDown
from service.core.session import Result, SessionKey
from service.frame import Answers, Frame
from service.rates import Submitter


class Malformed(NamedTuple):
    """A step of a message that carries many that cannot be read: whose it is, as far as it says, and why."""

    session_id: str | None
    error: InvalidRequest


class Begun(Protocol):
    """Steps on their way."""

    def undone(self) -> asyncio.Future[Any] | None:
        """Return something that has to be done before all have ended, or None where they have."""
        ...

    def answer(self) -> bytes:
        """Return, when all have ended, the answer to the message, encoded."""
        ...

    def shut_down(self) -> ShuttingDown | None:
        """Return the error of a step that was refused at once because the service is going away."""
        ...


def begin(
    services: Services, submitter: Submitter, tenant: str, steps: Sequence[Addressed | Malformed], encoding: Encoding
) -> Begun:
    """Submit steps for sessions of `tenant`, that are answered by an array."""
    asked = timesteps_of(services, tenant, steps)
    together = None if asked is None else begin_together(submitter, asked, encoding)
    return together or begin_apart(services.limits, submitter, tenant, steps, encoding)


def begin_together(submitter: Submitter, asked: Timesteps, encoding: Encoding) -> Begun | None:
    """Submit timesteps as a frame, or return None where there is not room for all: they are to be begun apart."""
    roster = asked.roster

    def render(answers: Answers) -> _Piece:
        part = roster[answers.start : answers.start + len(answers.steps)]
        return _Piece(answers.start, encoding.encode_answers(part, answers))

    try:
        frame = submitter.submit_frame(roster, asked.x, asked.numbers, render)
    except ConveyorError:
        return None  # each step is told
    return None if frame is None else _Together(frame, encoding)


def begin_apart(
    limits: Limits, submitter: Submitter, tenant: str, steps: Sequence[Addressed | Malformed], encoding: Encoding
) -> Begun:
    """Submit steps one by one."""
    return _Apart(limits, submitter, tenant, steps, encoding)


def begin_one(
    limits: Limits, submitter: Submitter, tenant: str, step: Addressed | Malformed, encoding: Encoding
) -> Begun:
    """Submit a step that came by itself, and is answered so."""
    return _One(limits, submitter, tenant, [step], encoding)


class _Piece(NamedTuple):
    """The answers to steps that follow each other in their message, from `start` on: encoded, one after the other."""

    start: int
    content: bytes


def timesteps_of(services: Services, tenant: str, steps: Sequence[Addressed | Malformed]) -> Timesteps | None:
    """Return steps as timesteps side by side, or None where not each of them is one timestep of another session."""
    if len(steps) < FEWEST or Malformed in set(map(type, steps)):
        return None
    plain = cast("Sequence[Addressed]", steps)
    if {step.outputs for step in plain} != {"last"}:
        return None
    x = single_timesteps([step.x for step in plain], services.limits.max_width)
    if x is None:
        return None
    roster = services.rosters.of(tenant, tuple([step.session_id for step in plain]))
    if roster is None:
        return None
    return Timesteps(roster, x, np.array([step.step or 0 for step in plain], np.uint64))


class _Together:
    """See `Begun`."""

    def __init__(self, frame: Frame, encoding: Encoding) -> None:
        self._frame = frame
        self._encoding = encoding

    def undone(self) -> asyncio.Future[None] | None:
        return None if self._frame.ended.done() else self._frame.ended

    def answer(self) -> bytes:
        self._frame.ended.result()  # raises what is no answer, but a defect
        keys, pieces = self._frame.keys, list(self._frame.answers)
        for i, outcome in self._frame.outcomes.items():
            name = keys[i].session_id
            told = rest_answer(name, outcome) if isinstance(outcome, Result) else rest_error(name, outcome)
            pieces.append(_Piece(i, self._encoding.encode_items([told])))
        return self._encoding.array_of([piece.content for piece in sorted(pieces)], len(keys))

    def shut_down(self) -> None:
        return None


class _Apart:
    """See `Begun`. The steps are submitted one by one."""

    def __init__(
        self,
        limits: Limits,
        submitter: Submitter,
        tenant: str,
        steps: Sequence[Addressed | Malformed],
        encoding: Encoding,
    ) -> None:
        self._steps = steps
        self._encoding = encoding
        self._started = [_start(limits, submitter, tenant, step, encoding) for step in steps]
        self._undone = [started for started in self._started if isinstance(started, asyncio.Future)]

    def undone(self) -> asyncio.Future[bytes] | None:
        while self._undone:
            if not self._undone[-1].done():
                return self._undone[-1]
            self._undone.pop()
        return None

    def answer(self) -> bytes:
        return self._encoding.array_of(list(self._items()), len(self._steps))

    def shut_down(self) -> ShuttingDown | None:
        return next((started for started in self._started if isinstance(started, ShuttingDown)), None)

    def _items(self) -> Iterator[bytes]:
        for step, started in zip(self._steps, self._started, strict=True):
            error = started if isinstance(started, ConveyorError) else started.exception()
            if isinstance(
                error, ConveyorError
            ):  # raised, it would hold what was sent in a circle, see `Pending.refuse`
                yield self._encoding.encode_items([rest_error(step.session_id, error)])
            else:
                yield cast("asyncio.Future[bytes]", started).result()  # raises what is no answer, but a defect


class _One(_Apart):
    """See `Begun`. A step whose answer stands in no array."""

    def answer(self) -> bytes:
        (item,) = self._items()
        return item


def _start(
    limits: Limits, submitter: Submitter, tenant: str, step: Addressed | Malformed, encoding: Encoding
) -> asyncio.Future[bytes] | ConveyorError:
    if isinstance(step, Malformed):
        return step.error
    session_id = step.session_id

    def render(result: Result) -> bytes:
        return encoding.encode_items([rest_answer(session_id, result)])

    try:
        return submitter.submit(SessionKey(tenant, session_id), step.timestep(limits), render)
    except ConveyorError as error:
        return error
