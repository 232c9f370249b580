"""Runs of sessions of one model, and what becomes of those without a finite answer."""

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from service.abreast import Sheet
from service.core.cache import RecordCache
from service.core.columns import Floats, Layout
from service.core.errors import ConveyorError, NonFiniteOutput
from service.core.ports import Clock, Model, Models, Observer
from service.pending import Run, StepTurn, refuse
from service.ran import Ran, RanSheet, RanTurns

INLINE_SECONDS = 1e-3
"""A run that takes no longer is made on the event loop. A thread would have to wait for the interpreter lock when it is
done, up to 5 ms while the loop is busy, and the batch with it."""


class _Made(NamedTuple):
    """What a run has made of those `rows` that came out well: outputs (rows, time, …), and states (rows, …)."""

    rows: Sequence[int]
    outputs: Floats
    state: Floats


class _Stamp(TypedDict):
    """What tells a write from others. See `service.core.session.Session`."""

    nonce: int
    now_ms: int


class Runner:
    """Runs what is planned. A turn without a finite answer is read anew and taken step by step, see `_not_finite`."""

    def __init__(self, models: Models, observer: Observer, cache: RecordCache, clock: Clock) -> None:
        self._models = models
        self._observer = observer
        self._cache = cache
        self._clock = clock
        # To be unlike all others is enough: nobody gains by guessing one, and the system's generator is a system call.
        self._nonces = random.Random(secrets.randbits(256))  # noqa: S311  # nosec B311
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="run")

    def close(self) -> None:
        self._threads.shutdown()

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

    async def turns(self, layout: Layout, group: list[Run], again: list[StepTurn]) -> Ran | None:
        """Run turns of one model and one length as one batch; return what came out well."""
        x = np.frombuffer(b"".join([run.plan.x for run in group]), np.float32)
        x = x.reshape(len(group), -1, layout.spec.width)
        state = layout.states([run.record for run in group])
        made = await self._run(layout, x, state, lambda rows: [group[row].turn for row in rows], again)
        if made is None:
            return None
        group = [group[row] for row in made.rows]
        ended = made.outputs[:, -1]
        records = [run.record for run in group]
        return RanTurns(group, layout.advance(records, x.shape[1], made.state, ended, **self._stamp()), made.outputs)

    async def sheet(self, sheet: Sheet, again: list[StepTurn]) -> Ran | None:
        """Run single timesteps side by side; return what came out well."""
        columns = sheet.columns
        made = await self._run(columns.layout, sheet.x, columns.state, sheet.abreast.turns, again)
        if made is None:
            return None
        sheet = sheet.pick(made.rows)
        records = sheet.columns.advance(1, made.state, made.outputs[:, -1], **self._stamp())
        return RanSheet(sheet, records, made.outputs)

    def _stamp(self) -> _Stamp:
        return {"nonce": self._nonces.getrandbits(64), "now_ms": unix_ms()}

    async def _run(
        self,
        layout: Layout,
        x: Floats,
        state: Floats,
        turns: Callable[[Sequence[int]], list[StepTurn]],
        again: list[StepTurn],
    ) -> _Made | None:
        """Run sessions of one model; `turns` are those of some rows. What is to be made anew is put into `again`."""
        rows: Sequence[int] = range(len(x))
        try:
            outputs, state = await self.run(self._models.holding(layout.ref), x, state)
        except ConveyorError as error:
            for turn in turns(rows):
                refuse(turn.steps, error, self._observer)
            return None
        if not all_finite(outputs, state):
            finite = finite_rows(outputs, state)
            for turn in turns(np.flatnonzero(~finite).tolist()):
                self._not_finite(turn, again)
            rows = np.flatnonzero(finite).tolist()
            if not rows:
                return None
            outputs, state = outputs[rows], state[rows]
        return _Made(rows, outputs, state)

    def _not_finite(self, turn: StepTurn, again: list[StepTurn]) -> None:
        """Have a session read anew and its steps taken one by one; refuse a step for which that was done before.

        So no step is refused for the company it was in, or on the word of an old record.
        """
        self._cache.drop(turn.key)
        if turn.steps[0].alone:
            error = NonFiniteOutput("the model has no finite answer to this; nothing advanced")
            refuse(turn.steps, error, self._observer)
            return
        for step in turn.steps:
            step.alone = True
        again.append(turn)


def all_finite(*parts: Floats) -> bool:
    return all(np.logical_and.reduce(np.isfinite(part), axis=None) for part in parts)


def finite_rows(*parts: Floats) -> NDArray[np.bool_]:
    """Return for each row (first axis) whether all of its numbers are finite."""
    finite: NDArray[np.bool_] = np.logical_and.reduce(
        [np.isfinite(part).reshape(len(part), -1).all(axis=1) for part in parts]
    )
    return finite


def unix_ms() -> int:
    return time.time_ns() // 1_000_000
