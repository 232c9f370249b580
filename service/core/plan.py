"""What to do with a turn: which of its steps to run, and what to answer the others.

Pure: it sees a session, its model's specification and the steps, and decides by their `step` numbers. With `at` the
session's count when a step's turn comes, `n` the number its client gave and `length` its timesteps:

=========================  =================================================================
no number, or n = at + 1   run
n + length - 1 = at        replayed: the stored outputs, or those of the twin in this turn
n <= at                    `StepConflict`
n > at + 1                 `StepGap`
=========================  =================================================================
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.core.errors import ConveyorError, ReplayUnavailable, StepConflict, StepGap
from service.core.session import Result, Session, Timestep
from service.core.spec import ModelSpec
from service.core.timestep import named, rows


class Window(NamedTuple):
    """The answer is timesteps `start` to `stop` (exclusive) of the turn's run."""

    start: int
    stop: int
    replayed: bool = False


Outcome = Window | Result | ConveyorError


class Plan(NamedTuple):
    """`x` is (time, features), what to run, or None for nothing; `outcomes` has one for each step of the turn."""

    x: NDArray[np.float32] | None
    outcomes: list[Outcome]

    @property
    def depends_on_record(self) -> bool:
        """Whether a step is answered on the word of the record, with no commit to prove that it is current."""
        return any(type(outcome) is not Window for outcome in self.outcomes)


def plan(session: Session, spec: ModelSpec, steps: Sequence[Timestep]) -> Plan:
    """Decide for each step of a turn, in their order."""
    taken: list[NDArray[np.float32]] = []
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
    if not taken:
        return Plan(None, outcomes)
    return Plan(taken[0] if len(taken) == 1 else np.concatenate(taken), outcomes)


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
