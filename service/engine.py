"""The one imperative shell: admits steps, forms batches, sends them down the pipeline.

A batch is whatever is ready when the previous one has ended, or a crowd, or the next timesteps of the same sessions,
that are ready while that is only being written still; nothing ever waits for a timer. Every step that was admitted ends
in a result or an error, on every path. A step is answered only after the store has acknowledged it.
"""

import asyncio
import time
from collections.abc import Collection, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, cast

import numpy as np
import structlog
from numpy.typing import NDArray

from service.core.admission import Admission
from service.core.batch import BatchFormer
from service.core.cache import RecordCache
from service.core.columns import Floats
from service.core.errors import ConveyorError, InternalError, ShuttingDown
from service.core.ports import Clock, Model, Models, Observer, StateStore
from service.core.session import Result, SessionKey, Timestep
from service.entrance import Asker, Caller, Entrance, Waiter
from service.frame import Frame, Numbers, frames
from service.pending import Pending, Render, StepBatch, StepTurn, refuse
from service.pipeline import Pipeline

log = structlog.get_logger(__name__)

_PASSES = 5
"""Passes of the event loop from a batch's end to the forming of the next: its answers are sent, the sockets are read,
what they held is submitted. It is ready, and a batch formed before it would cost the same for half the sessions.
After a batch of one session there is nobody to wait for, and with more waiting than is good there is no need to: one
pass sends the answers."""

_STRAINED = 128
"""Sessions in a batch while more is sent than can be done: a step waits for the batch before its own and for its own,
and one of twice as many costs hardly less for each. None begins early then, for there is no idle time to fill."""


class Engine:
    """Advances sessions. One per process, made and used in one event loop. `clock` is monotonic, in seconds.

    At most about `max_queue` timesteps wait, and no longer than about `max_wait_s`, see `service.core.admission`.
    """

    def __init__(
        self,
        store: StateStore,
        models: Models,
        observer: Observer,
        *,
        max_batch: int = 256,
        max_queue: int = 8192,
        max_wait_s: float = 0.03,
        cache_bytes: int = 32 * 2**20,
        step_timeout_s: float = 10.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._observer = observer
        self._max_queue = max_queue
        self._admission = Admission(max_queue=max_queue, max_wait_s=max_wait_s, max_batch=max_batch)
        self._step_timeout_s = step_timeout_s
        self._clock = clock
        self._former: BatchFormer[SessionKey, Pending] = BatchFormer(
            max_sessions=max_batch, tenant_of=attrgetter("tenant")
        )
        self._entrance = Entrance(self._former, self._admission, observer, clock)
        self._cache = RecordCache(cache_bytes)
        self._pipeline = Pipeline(store, models, observer, self._cache, clock)
        self._in_flight: dict[asyncio.Task[None], StepBatch] = {}
        self._pump_is_due = False
        self._busy_s: float | None = None
        self._closed = self._ended = False

    async def step(self, key: SessionKey, timestep: Timestep) -> Result:
        """Advance a session, or raise the `ConveyorError` for which it stays where it is."""
        result: Result = await self.submit(key, timestep)
        return result

    def submit(self, key: SessionKey, timestep: Timestep, render: Render | None = None) -> asyncio.Future[Any]:
        """Put a step behind those of its session that were submitted before; return its answer's future.

        It brings what `render` makes of the `Result`, or without it the result itself. Raises `Overloaded` where
        `max_queue` wait, and `ShuttingDown`. Ask for `has_room` before.
        """
        if self._closed:
            raise self._shutting_down()
        if self._former.waiting >= self._max_queue and not self._entrance.has_room(key.tenant):
            raise self._entrance.refuse().with_traceback(None)
        now = self._clock()
        future: asyncio.Future[Any] = self._loop.create_future()
        self._former.add(key, Pending(timestep, future, now, now + self._step_timeout_s, render))
        self._pump_soon()
        return future

    def submit_frame(
        self, keys: Sequence[SessionKey], x: Numbers, numbers: NDArray[np.uint64], render: Render | None = None
    ) -> Frame | None:
        """Put a timestep behind those of each of these sessions, distinct ones of one tenant. See `Frame`.

        Returns None where there is not room for all of them: they have to be submitted one by one. Raises
        `ShuttingDown`.
        """
        if self._closed:
            raise self._shutting_down()
        if self._former.waiting + len(keys) > self._max_queue:
            return None
        now = self._clock()
        frame = Frame(keys, x, numbers, now, now + self._step_timeout_s, render)
        self._former.add_group(frame)
        self._pump_soon()
        return frame

    def has_room(self, tenant: str) -> bool:
        """Return whether a tenant's next step may be submitted now; else `ask` or `wait`."""
        return self._entrance.has_room(tenant)

    def ask(self, tenant: str, asker: Asker) -> None:
        """Let somebody wait until there is room for a tenant's next step, or refuse them. See `Entrance`."""
        self._entrance.ask(tenant, asker)
        self._attend_again()

    def wait(self, tenant: str, waiter: Waiter) -> None:
        """Let somebody wait until there is room for a tenant's next step."""
        self._entrance.wait(tenant, waiter)
        self._attend_again()

    def leave(self, tenant: str, waiter: Waiter) -> None:
        """Forget somebody who waits."""
        self._entrance.leave(tenant, waiter)

    def admit(self, tenant: str) -> bool:
        """Return whether a tenant's next step may be submitted now. Who is not admitted may `enter`."""
        return self._entrance.admit(tenant)

    async def enter(self, tenant: str) -> None:
        """Return when a tenant's next step may be submitted. Raises `Overloaded`."""
        caller = Caller()
        self.ask(tenant, caller)
        try:
            await caller.admitted
        finally:
            self.leave(tenant, caller)
        self.admit(tenant)

    async def run(self, model: Model, x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """Run a model outside of any batch. See `Model.run`."""
        return await self._pipeline.run(model, x, state)

    def forget(self, key: SessionKey) -> None:
        """Read a session anew when it is next needed."""
        self._cache.drop(key)

    async def settle(self) -> None:
        """Return when what has been admitted until now has been answered."""
        admitted: list[asyncio.Future[Any]] = [*self._in_flight, *(step.future for step in self._former.steps())]
        admitted += [cast("Frame", group).ended for group in self._former.groups()]
        if admitted:
            await asyncio.wait(admitted)

    async def close(self, timeout_s: float = 1.0) -> None:
        """Admit nothing more; finish what was admitted, or after `timeout_s` seconds refuse what is left of it."""
        self._closed = True
        self._entrance.open()  # they are told
        try:
            async with asyncio.timeout(timeout_s):
                while not (self._former.idle or self._ended):
                    await self.settle()
        except TimeoutError:
            self._ended = True
            in_flight = self._in_flight.copy()
            for task in in_flight:
                task.cancel()
            await asyncio.gather(*in_flight, return_exceptions=True)
            for batch in in_flight.values():  # a task that is cancelled before it began does nothing at all
                self._refuse_rest(batch, self._shutting_down())
                refuse(batch.expired, self._shutting_down(), self._observer)
            refuse(self._former.abandon(), self._shutting_down(), self._observer)
            self._entrance.open()  # for those who came meanwhile
        self._pipeline.close()

    @staticmethod
    def _shutting_down() -> ShuttingDown:
        return ShuttingDown("this process is shutting down; another one will answer")

    def _pump_soon(self) -> None:
        if not self._pump_is_due:
            # After the callbacks that are ready now: they may submit more for the same batch.
            self._pump_is_due = True
            self._loop.call_soon(self._pump)

    def _pump_after(self, passes: int) -> None:
        if passes:
            self._pump_is_due = True
            self._loop.call_soon(self._pump_after, passes - 1)
        else:
            self._pump()

    def _pump(self) -> None:
        self._pump_is_due = False
        if self._ended:
            return
        formed = False
        most = _STRAINED if self._admission.congested else None
        while (batch := self._former.take(now := self._clock(), most)) is not None:
            formed = True
            task = self._loop.create_task(self._process(batch))
            self._in_flight[task] = batch
            task.add_done_callback(self._in_flight.pop)
        self._entrance.attend(now, formed=formed)
        self._attend_again()

    def _attend_again(self) -> None:
        """See to it that who waits is not forgotten: who was let in before may have had nothing to submit."""
        if self._entrance.waiting and self._former.idle and not self._pump_is_due:
            self._pump_after(1)

    async def _process(self, batch: StepBatch) -> None:
        again: list[StepTurn] = []
        failure: ConveyorError = InternalError("the step was left unanswered")
        try:
            again = await self._pipeline.advance(batch, partial(self._sent, batch))
        except ConveyorError as error:
            failure = error
        except asyncio.CancelledError:
            failure = self._shutting_down()
            raise
        except Exception as error:
            log.exception("a batch failed")
            failure = InternalError(f"the batch of this step failed: {type(error).__name__}")
        finally:
            # Whatever happened: nobody is left waiting.
            self._refuse_rest(batch, failure, {turn.key for turn in again})
            self._former.done(batch, again)
            self._account(batch)
            if not isinstance(failure, ShuttingDown):
                self._pump_after(self._passes(batch))

    def _sent(self, batch: StepBatch) -> None:
        if self._former.sent(batch):
            self._pump_soon()

    def _account(self, batch: StepBatch) -> None:
        """Tell what batches cost. Of a lone timestep nobody learns anything, and to ask takes a system call."""
        if batch.timesteps < 2 and self._former.idle:
            self._busy_s = None
            return
        busy_s = time.process_time()
        if self._busy_s is not None:
            self._admission.worked(batch.timesteps, busy_s - self._busy_s)
        self._busy_s = busy_s

    def _refuse_rest(
        self, batch: StepBatch, error: ConveyorError, spared: Collection[SessionKey] = frozenset()
    ) -> None:
        """End what is left of a batch, but for some sessions. Nearly always that is nothing."""
        for turn in batch.turns:
            steps = turn.steps
            if (len(steps) > 1 or not steps[0].future.done()) and turn.key not in spared:
                refuse(steps, error, self._observer)
        for frame, part in frames(batch):
            refuse([step for key, step in frame.unended(part) if key not in spared], error, self._observer)

    def _passes(self, batch: StepBatch) -> int:
        if batch.sessions < 2:
            return 0
        return 1 if self._admission.congested else _PASSES
