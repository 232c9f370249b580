"""A batch's way: plan, run, commit, answer."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from service.abreast import Abreast, Sheet, line_up
from service.core.cache import RecordCache
from service.core.columns import Floats
from service.core.errors import ConveyorError, DeadlineExceeded, OutcomeUnknown
from service.core.ports import Clock, Lost, Model, Models, Observer, StateStore
from service.core.trust import Trust
from service.core.turn import Turn
from service.frame import frames
from service.pending import Pending, StepBatch, StepTurn, refuse
from service.planner import Groups, Planner, not_found
from service.ran import Ran
from service.runner import Runner

_Run = Callable[[], Awaitable[Ran | None]]

_PART = 128
"""A batch is run and sent to the store in parts of about so many sessions: the store works on one part while the next
is run. In smaller parts another run and another exchange cost more than they hide (docs/decisions/0013)."""


class Pipeline:
    """Takes batches all the way. `cache` holds the records that were committed or read last."""

    def __init__(self, store: StateStore, models: Models, observer: Observer, cache: RecordCache, clock: Clock) -> None:
        self._store = store
        self._observer = observer
        self._cache = cache
        self._clock = clock
        self._trust = Trust()
        self._planner = Planner(store, models, observer, cache, self._trust, clock)
        self._runner = Runner(models, observer, cache, clock)
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        self._runner.close()

    async def run(self, model: Model, x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """Run a model outside of any batch. See `Model.run`."""
        return await self._runner.run(model, x, state)

    async def advance(self, batch: StepBatch, sent: Callable[[], None]) -> list[StepTurn]:
        """Answer a batch's steps. Returns the turns that are to be made again.

        `sent` is called when nothing is left to be done but to wait for the store, if that can be told before.
        """
        self._refuse(batch.expired, DeadlineExceeded("the step waited too long for its turn and was not run"))
        submitted = [turn.steps[0].submitted for turn in batch.turns]
        submitted += [frame.submitted for frame, _ in frames(batch)]
        if submitted:
            self._observer.stage("queue", self._clock() - min(submitted))
        again: list[StepTurn] = []
        runs, work = self._plan(batch, again)
        try:
            if len(runs) == 1 and not work:  # there is nothing beside it
                if (ran := await runs[0]()) is not None:
                    self._loop.call_soon(ran.render)  # when it has gone to the store
                    self._loop.call_soon(sent)
                    await self._commit(ran, again)
            else:
                reads = bool(work)
                await self._run_in_turn(runs, work, again)
                if not reads:
                    self._loop.call_soon(sent)
            failures = await asyncio.gather(*work, return_exceptions=True) if work else ()
        except BaseException:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            raise
        for failure in filter(None, failures):
            raise failure
        return [Turn(turn.key, left) for turn in again if (left := [s for s in turn.steps if not s.future.done()])]

    async def _run_in_turn(self, runs: Sequence[_Run], work: list[asyncio.Task[None]], again: list[StepTurn]) -> None:
        """Run one after the other, and leave what is being written in `work`."""
        unwritten: dict[asyncio.Task[None], Ran] = {}
        for run in runs:
            if work:
                await asyncio.sleep(0)  # what has been begun goes on its way to the store
            if (ran := await run()) is not None:
                task = self._loop.create_task(self._commit(ran, again))
                unwritten[task] = ran
                task.add_done_callback(unwritten.pop)
                work.append(task)
                del ran  # it is large, and may be written before the next one has been run
        if unwritten:
            await asyncio.sleep(0)
            for task, ran in unwritten.items():
                if not task.done():
                    self._loop.call_soon(ran.render)

    def _refuse(self, steps: Iterable[Pending], error: ConveyorError) -> None:
        refuse(steps, error, self._observer)

    def _plan(self, batch: StepBatch, again: list[StepTurn]) -> tuple[list[_Run], list[asyncio.Task[None]]]:
        """Return the runs that a batch needs. What has to be read first is on its way then."""
        runs: list[_Run] = []
        work: list[Coroutine[Any, Any, None]] = []
        lined, turns = line_up(batch)
        groups, unread = self._planner.plan(turns)
        work += [self._read_turns(unread[rows], again) for rows in _parts(len(unread))]
        for abreast in lined:
            planned, missing = self._planner.plan_abreast(abreast)
            for sheet in planned:
                runs += [partial(self._runner.sheet, sheet.part(rows), again) for rows in _parts(len(sheet.abreast))]
            if missing is not None:
                work += [self._read_abreast(missing[rows], again) for rows in _parts(len(missing))]
        for (layout, _), group in groups.items():
            runs += [partial(self._runner.turns, layout, group[rows], again) for rows in _parts(len(group))]
        return runs, [self._loop.create_task(each) for each in work]

    async def _read_turns(self, turns: Sequence[StepTurn], again: list[StepTurn]) -> None:
        await self._run_read([], await self._planner.read(turns), again)

    async def _read_abreast(self, abreast: Abreast, again: list[StepTurn]) -> None:
        await self._run_read(*await self._planner.read_abreast(abreast), again)

    async def _run_read(self, planned: Sequence[Sheet], groups: Groups, again: list[StepTurn]) -> None:
        ran = [await self._runner.sheet(sheet, again) for sheet in planned]
        ran += [await self._runner.turns(layout, group, again) for (layout, _), group in groups.items()]
        # All of them, whatever becomes of one: what is still being written may not be refused yet.
        writing = [self._commit(each, again, read=True) for each in ran if each is not None]
        failures = await asyncio.gather(*writing, return_exceptions=True)
        for failure in filter(None, failures):
            raise failure

    async def _commit(self, ran: Ran, again: list[StepTurn], *, read: bool = False) -> None:
        """Write what was run, and answer. Turns that lost against another writer are put into `again`.

        Unless it was run on what had just been `read`, it tells how good it is to run on what is remembered.
        """
        writes = ran.writes
        verdicts: Sequence[Lost | ConveyorError | None]
        started = self._clock()
        try:
            verdicts = await self._store.commit(writes)
        except ConveyorError as error:
            verdicts = [error] * len(writes)  # what became of the exchange became of all that it carried, and no more
        except BaseException as error:
            for turn in map(ran.turn, range(len(writes))):
                self._cache.drop(turn.key)
                if isinstance(error, asyncio.CancelledError):
                    self._refuse(turn.steps, OutcomeUnknown("this process was stopped in the middle of a write"))
            raise
        took = self._clock() - started
        written: Sequence[int] = range(len(writes))
        lost = 0
        if verdicts.count(None) < len(writes):  # hardly ever
            written = [i for i in written if verdicts[i] is None]
            lost = sum(isinstance(verdict, Lost) for verdict in verdicts)
            for i, verdict in enumerate(verdicts):
                if verdict is not None:
                    self._not_written(ran.turn(i), verdict, again)
        if not read:
            self._trust.weigh(lost, len(written))
        ran.remember(written, self._cache)
        ran.answer(written, self._observer)
        # Last, so that it is counted after the answers are on their way.
        self._observer.stage("commit", took)
        if written:
            self._observer.steps(ran.layout.ref, ran.timesteps * len(written))

    def _not_written(self, turn: StepTurn, verdict: Lost | ConveyorError, again: list[StepTurn]) -> None:
        if isinstance(verdict, Lost) and verdict.current is not None:
            self._observer.conflict()
            self._planner.remember(turn.key, verdict.current)
            again.append(turn)
            return
        self._cache.drop(turn.key)
        self._refuse(turn.steps, verdict if isinstance(verdict, ConveyorError) else not_found(turn.key))


def _parts(count: int) -> Iterator[slice]:
    """Divide so many turns into parts that differ in size by one at most."""
    parts = min(max(1, round(count / _PART)), count)
    for i in range(parts):
        yield slice(i * count // parts, (i + 1) * count // parts)
