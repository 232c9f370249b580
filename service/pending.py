"""A step between its admission and its answer, and a turn of them on its way through a batch."""

import asyncio
from dataclasses import dataclass
from typing import NamedTuple

from service.core.batch import Batch, Turn
from service.core.errors import ConveyorError
from service.core.plan import Plan
from service.core.ports import Floats, Model
from service.core.session import Result, Session, SessionKey, Timestep


@dataclass(slots=True)
class Pending:
    """A step that was admitted and not yet answered. Times are the engine's clock, in seconds.

    `alone` says that it has been run once, in company, without a finite answer.
    """

    timestep: Timestep
    future: asyncio.Future[Result]
    submitted: float
    deadline: float
    length: int
    alone: bool = False

    def answer(self, result: Result) -> None:
        if not self.future.done():  # its client may have gone
            self.future.set_result(result)

    def refuse(self, error: ConveyorError) -> None:
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # its client may go before it asks: that is no news for the log


StepTurn = Turn[SessionKey, Pending]
StepBatch = Batch[SessionKey, Pending]


class Run(NamedTuple):
    """A turn that is to be run: what its session is now, and what its steps ask for."""

    turn: StepTurn
    session: Session
    model: Model
    plan: Plan


class Ran(NamedTuple):
    """A turn that was run: the session that is to be, and the outputs (time, `spec.output_size`), float32."""

    run: Run
    next: Session
    outputs: Floats
