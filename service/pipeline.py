"""A batch's way: read what is missing, decide, run, commit, answer."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from service.core.batch import Turn
from service.core.cache import LRU
from service.core.errors import ConveyorError, DeadlineExceeded, NonFiniteOutput, OutcomeUnknown, SessionNotFound
from service.core.plan import Window, plan
from service.core.ports import Commit, Floats, Lost, Model, Models, Observer, StateStore
from service.core.session import ModelRef, Result, Session, SessionKey
from service.core.timestep import named
from service.pending import Pending, Ran, Run, StepBatch, StepTurn

INLINE_SECONDS = 1e-3
"""A run that takes no longer is made on the event loop. A thread would have to wait for the interpreter lock when it is
done, up to 5 ms while the loop is busy, and the batch with it."""

Clock = Callable[[], float]

_WRITTEN_WHOLE = 32
"""A batch of fewer sessions is written at once: another exchange would cost more than the store's time for it."""


class Pipeline:
    """Takes batches all the way. `cache` holds the sessions that were committed or read last."""

    def __init__(
        self, store: StateStore, models: Models, observer: Observer, cache: LRU[SessionKey, Session], clock: Clock
    ) -> None:
        self._store = store
        self._models = models
        self._observer = observer
        self._cache = cache
        self._clock = clock
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="run")

    def close(self) -> None:
        self._threads.shutdown()

    async def advance(self, batch: StepBatch) -> list[StepTurn]:
        """Answer a batch's steps. Returns the turns that are to be made again.

        Raises `StoreUnavailable` where sessions cannot be read; the steps that it left unanswered did not advance.
        """
        self.refuse(batch.expired, DeadlineExceeded("the step waited too long for its turn and was not run"))
        waiting = min((step.submitted for turn in batch.turns for step in turn.steps), default=None)
        if waiting is not None:
            self._observer.stage("queue", self._clock() - waiting)
        runs = await self._plan(batch.turns)
        groups: dict[tuple[object, int], list[Run]] = {}
        for run in runs:
            if run.plan.x is not None:
                groups.setdefault((run.model.ref, len(run.plan.x)), []).append(run)
        ran: list[Ran] = []
        again: list[StepTurn] = []
        for group in groups.values():
            await self._run_group(group, ran, again)
        await self._commit(ran, again)
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

    def refuse(self, steps: Iterable[Pending], error: ConveyorError) -> None:
        """End in an error those of the steps that have not ended yet."""
        for step in steps:
            if not step.future.done():
                self._observer.refused(error.code)
                step.refuse(error)

    async def _plan(self, turns: Sequence[StepTurn]) -> list[Run]:
        """Decide what to run, and answer the steps that need no run.

        An answer that rests on the record alone is given only when the record has just been read: no commit will
        tell that it was out of date.
        """
        runs: list[Run] = []
        unread: list[StepTurn] = []
        for turn in turns:
            session = self._cache.get(turn.key)
            run = None if session is None else self._plan_turn(turn, session)
            if isinstance(run, Run) and not run.plan.depends_on_record:
                runs.append(run)
            else:
                unread.append(turn)
        self._observer.cache(len(runs), len(unread))
        if unread:
            runs += await self._plan_unread(unread)
        for run in runs:
            for step, outcome in zip(run.turn.steps, run.plan.outcomes, strict=True):
                if isinstance(outcome, Result):
                    self._observer.replayed()
                    step.answer(outcome)
                elif isinstance(outcome, ConveyorError):
                    self.refuse([step], outcome)
        return runs

    async def _plan_unread(self, turns: Sequence[StepTurn]) -> list[Run]:
        started = self._clock()
        sessions = await self._store.load([turn.key for turn in turns])
        self._observer.stage("read", self._clock() - started)
        runs = []
        for turn, session in zip(turns, sessions, strict=True):
            if isinstance(session, Session):
                self._cache.put(turn.key, session)
                run = self._plan_turn(turn, session)
                if isinstance(run, Run):
                    runs.append(run)
                else:
                    self.refuse(turn.steps, run)
            else:
                self._cache.drop(turn.key)
                self.refuse(turn.steps, session or not_found(turn.key))
        return runs

    def _plan_turn(self, turn: StepTurn, session: Session) -> Run | ConveyorError:
        try:
            model = self._models.holding(session.model)
        except ConveyorError as error:
            return error
        return Run(turn, session, model, plan(session, model.spec, [step.timestep for step in turn.steps]))

    async def _run_group(self, group: list[Run], ran: list[Ran], again: list[StepTurn]) -> None:
        """Run turns of one model and one length as one batch.

        Those that came out well are put into `ran`. One without a finite answer is put into `again`, its session to be
        read anew and its steps to be taken one by one, so that no step is refused for the company it was in or on the
        word of an old record; the second time it is refused.
        """
        model = group[0].model
        x = np.stack([run.plan.x for run in group if run.plan.x is not None])
        state = np.frombuffer(b"".join([run.session.state for run in group]), np.float32).reshape(len(group), -1)
        try:
            outputs, next_state = await self.run(model, x, state)
        except ConveyorError as error:
            for run in group:
                self.refuse(run.turn.steps, error)
            return
        finite = finite_rows(outputs, next_state)
        nonce = secrets.randbits(64)
        now = unix_ms()
        for i, run in enumerate(group):
            if not finite[i]:
                self._not_finite(run.turn, again)
                continue
            session = run.session
            advanced = Session(
                model=session.model,
                epoch=session.epoch,
                step=session.step + x.shape[1],
                nonce=nonce,
                updated_at_ms=now,
                ttl_s=session.ttl_s,
                state=next_state[i].tobytes(),
                outputs=outputs[i, -1].tobytes(),
            )
            ran.append(Ran(run, advanced, outputs[i]))

    def _not_finite(self, turn: StepTurn, again: list[StepTurn]) -> None:
        self._cache.drop(turn.key)
        if turn.steps[0].alone:
            self.refuse(turn.steps, NonFiniteOutput("the model has no finite answer to this; nothing advanced"))
            return
        for step in turn.steps:
            step.alone = True
        again.append(turn)

    async def _commit(self, ran: list[Ran], again: list[StepTurn]) -> None:
        """Write what was run, and answer. Turns that lost against another writer are put into `again`.

        A large batch is written in two parts, so that the first is answered while the store is busy with the second.
        """
        if len(ran) < _WRITTEN_WHOLE:
            await self._commit_part(ran, again)
            return
        half = len(ran) // 2
        parts = (self._commit_part(ran[:half], again), self._commit_part(ran[half:], again))
        for failure in await asyncio.gather(*parts, return_exceptions=True):
            if failure is not None:
                raise failure

    async def _commit_part(self, ran: list[Ran], again: list[StepTurn]) -> None:
        if not ran:
            return
        commits = [Commit(run.turn.key, run.session.epoch, run.session.step, next_) for run, next_, _ in ran]
        verdicts: Sequence[Lost | ConveyorError | None]
        started = self._clock()
        try:
            verdicts = await self._store.commit(commits)
        except ConveyorError as error:
            verdicts = [error] * len(commits)  # what became of the exchange became of all that it carried, and no more
        except BaseException as error:
            for (run, _, _), commit in zip(ran, commits, strict=True):
                self._cache.drop(commit.key)
                if isinstance(error, asyncio.CancelledError):
                    self.refuse(run.turn.steps, OutcomeUnknown("this process was stopped in the middle of a write"))
            raise
        self._observer.stage("commit", self._clock() - started)
        committed: Counter[ModelRef] = Counter()
        for made, commit, verdict in zip(ran, commits, verdicts, strict=True):
            turn = made.run.turn
            if verdict is None:
                self._cache.put(commit.key, commit.session)
                self._answer(made)
                committed[commit.session.model] += len(made.outputs)
            elif isinstance(verdict, Lost) and verdict.current is not None:
                self._observer.conflict()
                self._cache.put(commit.key, verdict.current)
                again.append(turn)
            else:
                self._cache.drop(commit.key)
                self.refuse(turn.steps, verdict if isinstance(verdict, ConveyorError) else not_found(commit.key))
        for model, timesteps in committed.items():
            self._observer.steps(model, timesteps)

    def _answer(self, ran: Ran) -> None:
        (turn, session, model, plan), _, outputs = ran
        for step, outcome in zip(turn.steps, plan.outcomes, strict=True):
            if isinstance(outcome, Window):
                window = slice(outcome.start, outcome.stop) if step.timestep.every else outcome.stop - 1
                step.answer(Result(session.step + outcome.stop, named(model.spec, outputs[window]), outcome.replayed))


def finite_rows(*parts: Floats) -> NDArray[np.bool_]:
    """Return for each row (first axis) whether all of its numbers are finite."""
    finite: NDArray[np.bool_] = np.logical_and.reduce(
        [np.isfinite(part).reshape(len(part), -1).all(axis=1) for part in parts]
    )
    return finite


def not_found(key: SessionKey) -> SessionNotFound:
    return SessionNotFound(f"there is no session {key.session_id!r}; it was never opened, was deleted or has expired")


def unix_ms() -> int:
    return time.time_ns() // 1_000_000
