"""A step between its admission and its answer, and a turn of them on its way through a batch."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from service.core.columns import Layout
from service.core.errors import ConveyorError
from service.core.plan import Plan
from service.core.ports import Observer
from service.core.session import Result, SessionKey, Timestep
from service.core.turn import Batch, Turn

Render = Callable[[Any], Any]
"""Makes of a result what its future is to bring. It is called while the result is on its way to the store, which is
time that costs nobody anything, or, where there was none, when it is there; what it made of one that was not written is
thrown away."""


def rendered(render: Render | None, result: Any) -> Any:
    """Return what a render makes of a result; without one that, and the defect of one that fails."""
    if render is None:
        return result
    try:
        return render(result)
    except Exception as error:  # it is its client's, and not that of the others in the batch
        return error


class Pending:
    """A step that was admitted and not yet answered. Times are the engine's clock, in seconds.

    `alone` says that it has been run once, in company, without a finite answer.
    """

    __slots__ = ("_render", "alone", "deadline", "future", "length", "submitted", "timestep")

    def __init__(
        self,
        timestep: Timestep,
        future: asyncio.Future[Any],
        submitted: float,
        deadline: float,
        render: Render | None = None,
    ) -> None:
        self.timestep = timestep
        self.length = timestep.length
        self.future = future
        self.submitted = submitted
        self.deadline = deadline
        self.alone = False
        self._render = render

    def step(self) -> "Pending":
        """See `service.abreast.Home`."""
        return self

    def rendered(self, result: Result) -> Any:
        """Return what the future is to bring, see `Render`."""
        return rendered(self._render, result)

    def answer(self, rendered: Any) -> None:
        if self.future.done():  # its client may have gone
            return
        if isinstance(rendered, Exception):
            self.future.set_exception(rendered)
        else:
            self.future.set_result(rendered)

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
