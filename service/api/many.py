"""The steps of a message that carries many: begun together, answered together, each with an end of its own."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

from service.abreast import FEWEST
from service.api.dependencies import Limits
from service.api.messages import Addressed, Rows, rest_answer, rest_answers, rest_error, single_timesteps
from service.core.errors import ConveyorError, InvalidRequest, ShuttingDown
from service.core.session import Result, SessionKey
from service.frame import Frame
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

    def answers(self, rows: Rows) -> list[dict[str, Any]]:
        """Return, when all have ended, the part of each in the answer to the message. `rows` is its encoding's."""
        ...

    def shut_down(self) -> ShuttingDown | None:
        """Return the error of a step that was refused at once because the service is going away."""
        ...


def begin(limits: Limits, submitter: Submitter, tenant: str, steps: Sequence[Addressed | Malformed]) -> Begun:
    """Submit steps for sessions of `tenant`."""
    frame = _submit_frame(limits, submitter, tenant, steps)
    return _Apart(limits, submitter, tenant, steps) if frame is None else _Together(frame)


def _submit_frame(
    limits: Limits, submitter: Submitter, tenant: str, steps: Sequence[Addressed | Malformed]
) -> Frame | None:
    """Submit steps as a frame, where each is one timestep of another session, and there is room for all."""
    if len(steps) < FEWEST or Malformed in set(map(type, steps)):
        return None
    plain = cast("Sequence[Addressed]", steps)
    if {step.outputs for step in plain} != {"last"}:
        return None
    x = single_timesteps([step.x for step in plain], limits.max_width)
    keys = [SessionKey(tenant, step.session_id) for step in plain]
    if x is None or len(set(keys)) < len(keys):
        return None
    try:
        return submitter.submit_frame(keys, x, np.array([step.step or 0 for step in plain], np.uint64))
    except ConveyorError:
        return None  # each step is told


class _Together:
    """See `Begun`."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def undone(self) -> asyncio.Future[None] | None:
        return None if self._frame.ended.done() else self._frame.ended

    def answers(self, rows: Rows) -> list[dict[str, Any]]:
        frame = self._frame
        ids = [key.session_id for key in frame.keys]
        told: list[dict[str, Any]] = [{}] * len(ids)
        for answers in frame.answers:
            part = slice(answers.start, answers.start + len(answers.steps))
            told[part] = rest_answers(ids[part], answers, rows)
        for i, outcome in frame.outcomes.items():
            told[i] = rest_answer(ids[i], outcome) if isinstance(outcome, Result) else rest_error(ids[i], outcome)
        return told

    def shut_down(self) -> None:
        return None


class _Apart:
    """See `Begun`. The steps are submitted one by one."""

    def __init__(
        self, limits: Limits, submitter: Submitter, tenant: str, steps: Sequence[Addressed | Malformed]
    ) -> None:
        self._steps = steps
        self._started = [_start(limits, submitter, tenant, step) for step in steps]
        self._undone = [started for started in self._started if isinstance(started, asyncio.Future)]

    def undone(self) -> asyncio.Future[Result] | None:
        while self._undone:
            if not self._undone[-1].done():
                return self._undone[-1]
            self._undone.pop()
        return None

    def answers(self, _rows: Rows) -> list[dict[str, Any]]:
        return [_answer(step, started) for step, started in zip(self._steps, self._started, strict=True)]

    def shut_down(self) -> ShuttingDown | None:
        return next((started for started in self._started if isinstance(started, ShuttingDown)), None)


def _start(
    limits: Limits, submitter: Submitter, tenant: str, step: Addressed | Malformed
) -> asyncio.Future[Result] | ConveyorError:
    if isinstance(step, Malformed):
        return step.error
    try:
        return submitter.submit(SessionKey(tenant, step.session_id), step.timestep(limits))
    except ConveyorError as error:
        return error


def _answer(step: Addressed | Malformed, started: asyncio.Future[Result] | ConveyorError) -> dict[str, Any]:
    if isinstance(started, ConveyorError):
        return rest_error(step.session_id, started)
    error = started.exception()
    if isinstance(error, ConveyorError):
        return rest_error(step.session_id, error)
    return rest_answer(step.session_id or "", started.result())  # raises what is no answer, but a defect
