"""A batch's way: plan, run, commit, answer."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from service.abreast import Abreast, Sheet, line_up
from service.core.cache import RecordCache
from service.core.columns import Floats
from service.core.errors import ConveyorError, DeadlineExceeded, MovedOn, OutcomeUnknown
from service.core.ports import Clock, Lost, Model, Models, Observer, StateStore
from service.core.record import VERSION_SLICE
from service.core.session import SessionKey
from service.core.trust import Trust
from service.core.turn import Turn
from service.frame import frames
from service.pending import Pending, StepBatch, StepTurn, refuse
from service.planner import Groups, Planner, not_found
from service.prefetch import Prefetch
from service.ran import Ran
from service.runner import Runner
from service.succession import Succession, held_back, without, without_abreast

_Run = Callable[[], Awaitable[Ran | None]]

_PART = 128
"""A batch is run and sent to the store in parts of about so many sessions: the store works on one part while the next
is run. In smaller parts another run and another exchange cost more than they hide (docs/decisions/0013)."""


class Pipeline:
    """Takes batches all the way. `cache` holds the records that were read or sent to be written last."""

    def __init__(self, store: StateStore, models: Models, observer: Observer, cache: RecordCache, clock: Clock) -> None:
        self._store = store
        self._observer = observer
        self._cache = cache
        self._clock = clock
        self._trust = Trust()
        self._planner = Planner(store, models, observer, cache, self._trust, clock)
        self._runner = Runner(models, observer, cache, clock)
        self._succession = Succession()
        self._prefetch = Prefetch(store, cache)
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
        try:
            await self._go_through(batch, sent)
        finally:
            self._succession.end(batch)
        return [
            Turn(turn.key, left) for turn in batch.again if (left := [s for s in turn.steps if not s.future.done()])
        ]

    async def _go_through(self, batch: StepBatch, sent: Callable[[], None]) -> None:
        runs, work, announced = self._plan(batch)
        try:
            if announced:
                await asyncio.sleep(0)  # that goes on its way to the store
            if len(runs) == 1 and not work:  # there is nothing beside it
                if (ran := await runs[0]()) is not None:
                    self._loop.call_soon(self._meanwhile, ran)  # when it has gone to the store
                    self._loop.call_soon(sent)
                    await self._commit(batch, ran)
            else:
                reads = bool(work)
                await self._run_in_turn(batch, runs, work)
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

    async def _run_in_turn(self, batch: StepBatch, runs: Sequence[_Run], work: list[asyncio.Task[None]]) -> None:
        """Run one after the other, and leave what is being written in `work`."""
        unwritten: dict[asyncio.Task[None], Ran] = {}
        for run in runs:
            if work:
                await asyncio.sleep(0)  # what has been begun goes on its way to the store
            if (ran := await run()) is not None:
                task = self._loop.create_task(self._commit(batch, ran))
                unwritten[task] = ran
                task.add_done_callback(unwritten.pop)
                work.append(task)
                del ran  # it is large, and may be written before the next one has been run
        if unwritten:
            await asyncio.sleep(0)
            for task, ran in unwritten.items():
                if not task.done():
                    self._loop.call_soon(self._meanwhile, ran)

    def _meanwhile(self, ran: Ran) -> None:
        """Do what can be done while the store writes: remember what it is going to hold, and make the answers."""
        if not ran.remembered:
            ran.remember(range(len(ran.writes)), self._cache)
            ran.render()

    def _refuse(self, steps: Iterable[Pending], error: ConveyorError) -> None:
        refuse(steps, error, self._observer)

    def _plan(self, batch: StepBatch) -> tuple[list[_Run], list[asyncio.Task[None]], bool]:
        """Return the runs that a batch needs. What has to be read first is on its way then.

        Returns also whether the first run's sessions have been announced to the store.
        """
        announced = False
        runs: list[_Run] = []
        work: list[Coroutine[Any, Any, None]] = []
        again = batch.again
        lined, turns = line_up(batch)
        if batch.early and (held := held_back(batch)):
            turns = without(held, turns, again)
            lined = [without_abreast(held, abreast, again) for abreast in lined]
        groups, unread = self._planner.plan(turns)
        work += [self._read_turns(batch, unread[rows]) for rows in _parts(len(unread))]
        for abreast in lined:
            planned, missing = self._planner.plan_abreast(abreast)
            for sheet in planned:
                parts = [sheet.part(rows) for rows in _parts(len(sheet.abreast))]
                announced = announced or (not (runs or work) and self._prefetch.announce(parts[0].abreast.keys))
                runs += [partial(self._runner.sheet, part, again) for part in parts]
            if missing is not None:
                work += [self._read_abreast(batch, missing[rows]) for rows in _parts(len(missing))]
        for (layout, _), group in groups.items():
            runs += [partial(self._runner.turns, layout, group[rows], again) for rows in _parts(len(group))]
        return runs, [self._loop.create_task(each) for each in work], announced

    async def _read_turns(self, batch: StepBatch, turns: Sequence[StepTurn]) -> None:
        if batch.early:
            turns = without(await self._held_back(batch), turns, batch.again)
        if turns:
            await self._run_read(batch, [], await self._planner.read(turns))

    async def _read_abreast(self, batch: StepBatch, abreast: Abreast) -> None:
        if batch.early:
            abreast = without_abreast(await self._held_back(batch), abreast, batch.again)
        if len(abreast):
            await self._run_read(batch, *await self._planner.read_abreast(abreast))

    async def _held_back(self, batch: StepBatch) -> set[SessionKey]:
        """Return what is `held_back` for good: when the batch before has ended."""
        if batch.before is not None:
            await self._succession.until_ended(batch.before)
        return held_back(batch)

    async def _run_read(self, batch: StepBatch, planned: Sequence[Sheet], groups: Groups) -> None:
        ran = [await self._runner.sheet(sheet, batch.again) for sheet in planned]
        ran += [await self._runner.turns(layout, group, batch.again) for (layout, _), group in groups.items()]
        # All of them, whatever becomes of one: what is still being written may not be refused yet.
        writing = [self._commit(batch, each, read=True) for each in ran if each is not None]
        failures = await asyncio.gather(*writing, return_exceptions=True)
        for failure in filter(None, failures):
            raise failure

    async def _commit(self, batch: StepBatch, ran: Ran, *, read: bool = False) -> None:
        """Write what was run, and answer. Turns that lost against another writer are to be made again.

        Unless it was run on what had just been `read`, it tells how good it is to run on what is remembered.
        """
        writes = ran.writes
        self._succession.writes(batch, ran)
        verdicts: Sequence[Lost | ConveyorError | None]
        started = self._clock()
        try:
            with self._prefetch:
                verdicts = await self._store.commit(writes)
        except ConveyorError as error:
            verdicts = [error] * len(writes)  # what became of the exchange became of all that it carried, and no more
        except BaseException as error:
            ran.remembered = True  # never again
            for turn in map(ran.turn, range(len(writes))):
                self._cache.drop(turn.key)
                if isinstance(error, asyncio.CancelledError):
                    self._refuse(turn.steps, OutcomeUnknown("this process was stopped in the middle of a write"))
            raise
        took = self._clock() - started
        written: Sequence[int] = range(len(writes))
        lost = 0
        if verdicts.count(None) < len(writes):  # hardly ever
            written, lost = self._sort_out(batch, ran, verdicts)
        if not read:
            self._trust.weigh(lost, len(written))
        if not ran.remembered:
            ran.remember(written, self._cache)
        ran.answer(written, self._observer)
        # Last, so that it is counted after the answers are on their way.
        self._observer.stage("commit", took)
        if written:
            self._observer.steps(ran.layout.ref, ran.timesteps * len(written))

    def _sort_out(
        self, batch: StepBatch, ran: Ran, verdicts: Sequence[Lost | ConveyorError | None]
    ) -> tuple[list[int], int]:
        """Deal with the rows that were not written; return those that were, and how many lost."""
        written = []
        lost = 0
        behind = self._succession.written_behind(batch) if MovedOn in set(map(type, verdicts)) else {}
        for i, verdict in enumerate(verdicts):
            if isinstance(verdict, MovedOn):
                key, _, record = ran.writes[i]
                if behind.get((key, record[VERSION_SLICE])) == verdict.version:
                    verdict = None
            if verdict is None:
                written.append(i)
                continue
            # One that goes ahead loses what the one before has lost: that is no news of other writers.
            lost += isinstance(verdict, Lost) and not batch.early
            self._not_written(ran.turn(i), verdict, batch)
        return written, lost

    def _not_written(self, turn: StepTurn, verdict: Lost | ConveyorError, batch: StepBatch) -> None:
        if isinstance(verdict, Lost) and verdict.current is not None:
            if not batch.early:
                self._observer.conflict()
            self._planner.remember(turn.key, verdict.current)
            batch.again.append(turn)
            return
        self._cache.drop(turn.key)
        self._refuse(turn.steps, verdict if isinstance(verdict, ConveyorError) else not_found(turn.key))


def _parts(count: int) -> Iterator[slice]:
    """Divide so many turns into parts that differ in size by one at most."""
    parts = min(max(1, round(count / _PART)), count)
    for i in range(parts):
        yield slice(i * count // parts, (i + 1) * count // parts)
