"""A step between its admission and its answer, and a turn of them on its way through a batch."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from service.core.batch import Batch, Turn
from service.core.columns import Floats, Layout
from service.core.errors import ConveyorError
from service.core.plan import Plan, Window
from service.core.ports import Observer
from service.core.session import Result, SessionKey, Timestep


class Pending:
    """A step that was admitted and not yet answered. Times are the engine's clock, in seconds.

    `alone` says that it has been run once, in company, without a finite answer.
    """

    __slots__ = ("alone", "deadline", "future", "length", "submitted", "timestep")

    def __init__(self, timestep: Timestep, future: asyncio.Future[Result], submitted: float, deadline: float) -> None:
        self.timestep = timestep
        self.length = timestep.length
        self.future = future
        self.submitted = submitted
        self.deadline = deadline
        self.alone = False

    def answer(self, result: Result) -> None:
        if not self.future.done():  # its client may have gone
            self.future.set_result(result)

    def refuse(self, error: ConveyorError) -> None:
        if not self.future.done():
            # The traceback leads to the batch, and the batch to this: a circle that would hold what was sent for long.
            self.future.set_exception(error.with_traceback(None))
            self.future.exception()  # its client may go before it asks: that is no news for the log


def refuse(steps: Iterable[Pending], error: ConveyorError, observer: Observer) -> None:
    """End in an error those of the steps that have not ended yet."""
    for step in steps:
        if not step.future.done():
            observer.refused(error.code)
            step.refuse(error)


StepTurn = Turn[SessionKey, Pending]
StepBatch = Batch[SessionKey, Pending]


class Run(NamedTuple):
    """A turn that is to be run: the record that its session has now, and what its steps ask for."""

    turn: StepTurn
    layout: Layout
    record: bytes
    plan: Plan


class Ran(NamedTuple):
    """A turn that was run.

    `record` is what its session's is to be, `before` the step that it was at. Its outputs are row `row` of each of
    `outputs`: by name, (batch, time, …), float32.
    """

    run: Run
    record: bytes
    before: int
    outputs: Mapping[str, Floats]
    row: int

    def answer(self, observer: Observer) -> None:
        """Give the turn's steps what they asked for, or tell them why not."""
        (turn, _, _, plan), _, before, outputs, row = self
        for step, outcome in zip(turn.steps, plan.outcomes, strict=True):
            if isinstance(outcome, Window):
                window = slice(outcome.start, outcome.stop) if step.timestep.every else outcome.stop - 1
                found = {name: output[row, window] for name, output in outputs.items()}
                step.answer(Result(before + outcome.stop, found, outcome.replayed))
            elif isinstance(outcome, ConveyorError):
                refuse([step], outcome, observer)
