"""What to do with a turn: which of its steps to run, and what to answer the others.

Pure: it sees a session, its model's specification and the steps, and decides by their `step` numbers. With `at` the
session's count when a step's turn comes, `n` the number its client gave and `length` its timesteps:

=========================  =================================================================
no number, or n = at + 1   run
n + length - 1 = at        replayed: the stored outputs, or those of the twin in this turn
n <= at                    `StepConflict`
n > at + 1                 `StepGap`
=========================  =================================================================

`straight` knows the first line of it, and no bad numbers. That is nearly every turn there is, at a tenth of the price;
and it is all that may be decided on a record that was not just read: a commit will prove it, or fail.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np

from service.core.columns import Floats, Layout
from service.core.errors import ConveyorError, ReplayUnavailable, StepConflict, StepGap
from service.core.session import Result, Session, Timestep, Values
from service.core.spec import ModelSpec
from service.core.timestep import SURELY, named, rows


class Window(NamedTuple):
    """The answer is timesteps `start` to `stop` (exclusive) of the turn's run."""

    start: int
    stop: int
    replayed: bool = False


Outcome = Window | Result | ConveyorError


class Plan(NamedTuple):
    """What to run, and one outcome for each step of the turn.

    `x` are `length` timesteps back to back, float32 in native byte order.
    """

    x: bytes
    length: int
    outcomes: Sequence[Outcome]


_ALONE = (Window(0, 1),)


def straight(at: int, layout: Layout, steps: Sequence[Timestep]) -> Plan | None:
    """Plan a turn whose steps all come next, with good numbers, of a session at step `at`; any other is None."""
    try:
        if len(steps) == 1 and steps[0].length == 1:
            return _straight_one(at, layout, steps[0])
        return _straight_many(at, layout, steps)
    except (struct.error, OverflowError, TypeError, ValueError, LookupError):
        return None  # `plan` finds out what is wrong


def _straight_one(at: int, layout: Layout, step: Timestep) -> Plan | None:
    if step.step is not None and step.step != at + 1:
        return None
    (row,) = _rows(layout, step.values)
    return Plan(layout.pack(*row), 1, _ALONE) if sum(map(abs, row)) < SURELY else None


def _straight_many(at: int, layout: Layout, steps: Sequence[Timestep]) -> Plan | None:
    taken: list[bytes] = []
    outcomes: list[Outcome] = []
    length = 0
    for step in steps:
        if step.step is not None and step.step != at + length + 1:
            return None
        chunk = _rows(layout, step.values)
        if len(chunk) != step.length:
            return None
        taken += [layout.pack(*row) for row in chunk]
        outcomes.append(Window(length, length + step.length))
        length += step.length
    x = b"".join(taken)
    return Plan(x, length, outcomes) if np.abs(np.frombuffer(x, np.float32)).max() < SURELY else None


def _rows(layout: Layout, values: Values) -> Sequence[Sequence[float]]:
    if isinstance(values, dict):
        if len(values) != layout.spec.width:
            raise LookupError
        return [[values[name] for name in layout.spec.feature_names]]
    chunk = cast("Sequence[Sequence[float]]", values)
    return chunk if isinstance(chunk[0], list | tuple) else [chunk]  # type: ignore[list-item]


def plan(session: Session, spec: ModelSpec, steps: Sequence[Timestep]) -> Plan:
    """Decide for each step of a turn, in their order."""
    taken: list[Floats] = []
    outcomes: list[Outcome] = []
    length = 0
    for step in steps:
        try:
            if step.step is None or step.step == session.step + length + 1:
                taken.append(rows(spec, step.values))
                outcomes.append(Window(length, length + step.length))
                length += step.length
            else:
                outcomes.append(_not_next(session, spec, step, step.step, length))
        except ConveyorError as error:
            outcomes.append(error)
    return Plan(b"".join([x.tobytes() for x in taken]), length, outcomes)


def _not_next(session: Session, spec: ModelSpec, step: Timestep, number: int, run: int) -> Window | Result:
    """Answer a step that is not the next one, `run` timesteps into the turn, or raise what is wrong with it."""
    at = session.step + run
    if number > at + 1:
        raise StepGap(f"step {number} was sent to a session at step {at}; the next is {at + 1}", current_step=at)
    last = number + step.length - 1
    if last != at:
        raise StepConflict(
            f"step {number} was sent to a session that is at step {at} already; the next is {at + 1}",
            current_step=at,
        )
    start = run - step.length
    if step.every and step.length > 1 and start < 0:
        raise ReplayUnavailable(
            f"the chunk that ends at step {at} has been applied, and only the outputs of its last timestep are kept",
            current_step=at,
        )
    if run:
        return Window(max(start, 0), run, replayed=True)
    outputs = np.frombuffer(session.outputs, np.float32)
    return Result(at, named(spec, outputs[None] if step.every else outputs), replayed=True)
