"""A batch's way: plan, run, commit, answer."""

import asyncio
import random
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.core import record as records
from service.core.batch import Turn
from service.core.cache import LRU
from service.core.columns import Columns, Floats, Layout
from service.core.errors import ConveyorError, DeadlineExceeded, NonFiniteOutput, OutcomeUnknown
from service.core.ports import Clock, Commit, Lost, Model, Models, Observer, StateStore
from service.core.session import ModelRef, SessionKey
from service.core.timestep import named
from service.pending import Pending, Ran, Run, StepBatch, StepTurn, refuse
from service.planner import Planner, not_found

T = TypeVar("T")

INLINE_SECONDS = 1e-3
"""A run that takes no longer is made on the event loop. A thread would have to wait for the interpreter lock when it is
done, up to 5 ms while the loop is busy, and the batch with it."""

_HALVED, _PART = 32, 64
"""A batch of so many sessions is run and sent to the store in halves, a larger one in parts of about `_PART`: the store
works on one part while the next is run. In smaller parts another run and another exchange cost more than they hide."""


class Pipeline:
    """Takes batches all the way. `cache` holds the records that were committed or read last."""

    def __init__(
        self, store: StateStore, models: Models, observer: Observer, cache: LRU[SessionKey, bytes], clock: Clock
    ) -> None:
        self._store = store
        self._models = models
        self._observer = observer
        self._cache = cache
        self._clock = clock
        self._planner = Planner(store, models, observer, cache, clock)
        # To be unlike all others is enough: nobody gains by guessing one, and the system's generator is a system call.
        self._nonces = random.Random(secrets.randbits(256))  # noqa: S311  # nosec B311
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="run")

    def close(self) -> None:
        self._threads.shutdown()

    async def advance(self, batch: StepBatch) -> list[StepTurn]:
        """Answer a batch's steps. Returns the turns that are to be made again."""
        self._refuse(batch.expired, DeadlineExceeded("the step waited too long for its turn and was not run"))
        if batch.turns:
            longest_waiting = min([turn.steps[0].submitted for turn in batch.turns])
            self._observer.stage("queue", self._clock() - longest_waiting)
        again: list[StepTurn] = []
        groups, unread = self._planner.plan(batch.turns)
        work = [asyncio.create_task(self._read_and_run(part, again)) for part in _parts(unread)]
        try:
            for (layout, _), group in groups.items():
                for part in _parts(group):
                    if work:
                        await asyncio.sleep(0)  # what has been begun goes on its way to the store
                    writing = self._commit(await self._run(layout, part, again), again)
                    if len(part) == len(batch.turns):
                        await writing  # there is nothing beside it
                    else:
                        work.append(asyncio.create_task(writing))
            failures = await asyncio.gather(*work, return_exceptions=True)
        except BaseException:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            raise
        for failure in filter(None, failures):
            raise failure
        return [Turn(turn.key, left) for turn in again if (left := [s for s in turn.steps if not s.future.done()])]

    async def run(self, model: Model, x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """Run a model, in a thread where it would hold up the event loop. See `Model.run`."""
        started = self._clock()
        if model.seconds(*x.shape[:2]) <= INLINE_SECONDS:
            results = model.run(x, state)
        else:
            results = await asyncio.get_running_loop().run_in_executor(self._threads, model.run, x, state)
        self._observer.stage("run", self._clock() - started)
        self._observer.batch(model.ref, x.shape[0])
        return results

    def _refuse(self, steps: Iterable[Pending], error: ConveyorError) -> None:
        refuse(steps, error, self._observer)

    async def _read_and_run(self, turns: Sequence[StepTurn], again: list[StepTurn]) -> None:
        ran: list[Ran] = []
        for (layout, _), group in (await self._planner.read(turns)).items():
            ran += await self._run(layout, group, again)
        await self._commit(ran, again)

    async def _run(self, layout: Layout, group: list[Run], again: list[StepTurn]) -> list[Ran]:
        """Run turns of one model and one length as one batch.

        Returns those that came out well. One without a finite answer is put into `again`, its session to be
        read anew and its steps to be taken one by one, so that no step is refused for the company it was in or on the
        word of an old record; the second time it is refused.
        """
        x = np.frombuffer(b"".join([run.plan.x for run in group]), np.float32)
        columns = Columns(layout, [run.record for run in group])
        try:
            model = self._models.holding(layout.ref)
            outputs, state = await self.run(model, x.reshape(len(group), -1, layout.spec.width), columns.state)
        except ConveyorError as error:
            for run in group:
                self._refuse(run.turn.steps, error)
            return []
        bad = [] if all_finite(outputs, state) else np.flatnonzero(~finite_rows(outputs, state)).tolist()
        for row in bad:
            self._not_finite(group[row].turn, again)
        new = columns.advance(
            group[0].plan.length, state, outputs[:, -1], nonce=self._nonces.getrandbits(64), now_ms=unix_ms()
        )
        parts = named(layout.spec, outputs)
        return [
            Ran(run, record, before, parts, row)
            for row, (run, record, before) in enumerate(zip(group, new, columns.steps, strict=True))
            if row not in bad
        ]

    def _not_finite(self, turn: StepTurn, again: list[StepTurn]) -> None:
        self._cache.drop(turn.key)
        if turn.steps[0].alone:
            self._refuse(turn.steps, NonFiniteOutput("the model has no finite answer to this; nothing advanced"))
            return
        for step in turn.steps:
            step.alone = True
        again.append(turn)

    async def _commit(self, ran: list[Ran], again: list[StepTurn]) -> None:
        """Write what was run, and answer. Turns that lost against another writer are put into `again`."""
        if not ran:
            return
        commits = [Commit(made.run.turn.key, made.run.record[records.VERSION_SLICE], made.record) for made in ran]
        verdicts: Sequence[Lost | ConveyorError | None]
        started = self._clock()
        try:
            verdicts = await self._store.commit(commits)
        except ConveyorError as error:
            verdicts = [error] * len(commits)  # what became of the exchange became of all that it carried, and no more
        except BaseException as error:
            for made in ran:
                self._cache.drop(made.run.turn.key)
                if isinstance(error, asyncio.CancelledError):
                    self._refuse(
                        made.run.turn.steps, OutcomeUnknown("this process was stopped in the middle of a write")
                    )
            raise
        took = self._clock() - started
        committed: Counter[ModelRef] = Counter()
        for made, verdict in zip(ran, verdicts, strict=True):
            turn = made.run.turn
            if verdict is None:
                self._cache.put(turn.key, made.record)
                made.answer(self._observer)
                committed[made.run.layout.ref] += made.run.plan.length
            elif isinstance(verdict, Lost) and verdict.current is not None:
                self._observer.conflict()
                self._planner.remember(turn.key, verdict.current)
                again.append(turn)
            else:
                self._cache.drop(turn.key)
                self._refuse(turn.steps, verdict if isinstance(verdict, ConveyorError) else not_found(turn.key))
        # Last, so that it is counted after the answers are on their way.
        self._observer.stage("commit", took)
        for model, timesteps in committed.items():
            self._observer.steps(model, timesteps)


def _parts(whole: list[T]) -> Iterator[list[T]]:
    """Divide turns into parts that differ in size by one at most."""
    fewest = 2 if len(whole) >= _HALVED else 1
    count = min(max(fewest, round(len(whole) / _PART)), len(whole))
    for i in range(count):
        yield whole[i * len(whole) // count : (i + 1) * len(whole) // count]


def all_finite(*parts: Floats) -> bool:
    return all(np.isfinite(part).all() for part in parts)


def finite_rows(*parts: Floats) -> NDArray[np.bool_]:
    """Return for each row (first axis) whether all of its numbers are finite."""
    finite: NDArray[np.bool_] = np.logical_and.reduce(
        [np.isfinite(part).reshape(len(part), -1).all(axis=1) for part in parts]
    )
    return finite


def unix_ms() -> int:
    return time.time_ns() // 1_000_000
