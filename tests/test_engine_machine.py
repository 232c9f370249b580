"""The engine under random clients, cancellations, and a store and a model that fail, against a sequential oracle.

After all of it every future has ended, and every answer is one that a single process without faults would have given,
taking a session's steps one after the other in the order in which they were submitted, those of frames like all others.
A step whose client left, or was told that its outcome is unknown, was applied or was not: the oracle keeps a world for
each, and drops those that a later answer contradicts. A step that another process took came before or after any of
those that were on their way meanwhile. What the store holds in the end must be one of the worlds that are left.
"""

import asyncio
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from structlog.testing import capture_logs

from service.adapters.memory_store import MemoryStore
from service.adapters.metrics import PrometheusObserver
from service.adapters.model_repository import ModelRepository
from service.adapters.redis_store import RedisStore
from service.core import record
from service.core.columns import Floats
from service.core.errors import (
    ConveyorError,
    ModelFailed,
    OutcomeUnknown,
    StepConflict,
    StepGap,
)
from service.core.ports import Failure, Model, StateStore
from service.core.session import ModelRef, Result, SessionKey, Timestep
from service.core.spec import ModelSpec
from service.engine import Engine
from service.frame import Frame
from service.sessions import Sessions
from tests.adapters.graphs import accumulator, save
from tests.budget import examples
from tests.engines import told
from tests.faulty_store import Fate, FaultyStore
from tests.servers import RedisServer

PATIENCE_S = 5.0


class World(NamedTuple):
    """What a session may be: its step, its sums."""

    step: int
    sums: bytes

    def after(self, rows: Floats) -> tuple["World", list[bytes]]:
        """Apply timesteps one by one; return the world after them and each one's outputs."""
        sums = np.frombuffer(self.sums, np.float32)
        outputs = []
        for row in rows:
            sums = row + sums
            outputs.append(sums.tobytes())
        return World(self.step + len(rows), outputs[-1]), outputs


@dataclass
class Sent:
    """A step that was submitted, and its future."""

    key: SessionKey
    timestep: Timestep
    future: asyncio.Future[Result]

    @property
    def rows(self) -> Floats:
        return np.array(self.timestep.values, np.float32).reshape(self.timestep.length, -1)


class Foreign(NamedTuple):
    """Timesteps that another process took, behind `least` of those that were submitted here, and `most` at most."""

    rows: Floats
    least: int
    most: int


class FlakyModel:
    """See `service.core.ports.Model`. The next `failing` runs of it fail."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.failing = 0

    @property
    def ref(self) -> ModelRef:
        return self._model.ref

    @property
    def spec(self) -> ModelSpec:
        return self._model.spec

    def run(self, x: Floats, state: Floats) -> tuple[Floats, Floats]:
        if self.failing:
            self.failing -= 1
            raise ModelFailed("it was made to fail")
        return self._model.run(x, state)

    def seconds(self, batch: int, time: int) -> float:
        return self._model.seconds(batch, time)


@dataclass
class OneModel:
    """See `service.core.ports.Models`."""

    model: FlakyModel
    failures: Sequence[Failure] = field(default_factory=list)

    def __iter__(self) -> Iterator[Model]:
        yield self.model

    def versions(self, name: str) -> Mapping[str, Model]:
        return {self.model.ref.version: self.model}

    def find(self, name: str, version: str | None = None) -> Model:
        return self.model

    def holding(self, ref: ModelRef) -> Model:
        return self.model


_SOMEBODY = st.integers(0, 6)


class Clients(RuleBasedStateMachine):
    """Random clients of one engine. Subclasses say where its sessions are.

    `sizes` are those of the frames, of which each has the same sessions whenever it comes.
    """

    model: Model
    max_batch = 3
    sessions = 4
    sizes = (3, 3)

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.now = 0.0
        self.flaky = FlakyModel(self.model)
        self.sent: list[Sent] = []
        self.rows = 0
        tenant = f"t{uuid.uuid4().hex}"
        self.keys = [SessionKey(tenant, str(i)) for i in range(self.sessions)]
        self.rosters = [self.keys[: self.sizes[0]], self.keys[-self.sizes[1] :]]
        self.foreign: dict[SessionKey, list[Foreign]] = {key: [] for key in self.keys}
        self.expected = dict.fromkeys(self.keys, 0)
        self.runner.run(self._start())

    def a_store(self) -> StateStore:
        raise NotImplementedError

    async def _start(self) -> None:
        store = self.a_store()
        self.store = FaultyStore(store)
        models = OneModel(self.flaky)
        self.engine = Engine(
            self.store,
            models,
            PrometheusObserver(),
            max_batch=self.max_batch,
            step_timeout_s=PATIENCE_S,
            clock=lambda: self.now,
        )
        self.elsewhere = Engine(store, OneModel(FlakyModel(self.model)), PrometheusObserver())
        sessions = Sessions(self.store, models, self.engine, default_ttl_s=600, max_ttl_s=600, max_history=1)
        for key in self.keys:
            await sessions.create(key, "accumulator")

    # What clients, the store and the model do

    @rule(
        who=_SOMEBODY,
        length=st.sampled_from([1, 1, 1, 2, 70]),
        number=st.sampled_from([None, 0, 0, 0, -1, -2, 2]),
        every=st.booleans(),
    )
    def submit(self, who: int, length: int, number: int | None, every: bool) -> None:
        """Send a step without a number, or with one that is so far from the next as the client believes it to be."""
        key = self.keys[who % self.sessions]
        row = self._row()
        step = None if number is None else max(1, self.expected[key] + 1 + number)
        timestep = Timestep([row] * length if length > 1 else row, length, step, every)
        if step is None or number == 0:
            self.expected[key] += length
        self.sent.append(Sent(key, timestep, self.engine.submit(key, timestep)))

    @rule(
        roster=st.sampled_from([0, 0, 0, 1]),
        numbers=st.lists(st.sampled_from([None, 0, 0, 0, 0, -1, 2]), min_size=1, max_size=4),
        passes=st.integers(0, 12),
    )
    def submit_frames(self, roster: int, numbers: list[int | None], passes: int) -> None:
        """Send timesteps for each of the same sessions as ever, and another when the first are on their way."""
        if passes % 2:
            self.catch_up()
        for number in numbers:
            self._submit_frame(self.rosters[roster], number)
        self.let_it_work(passes)
        self._submit_frame(self.rosters[roster], 0)

    def _submit_frame(self, keys: Sequence[SessionKey], number: int | None) -> None:
        steps = [0 if number is None else max(1, self.expected[key] + 1 + number) for key in keys]
        timesteps = [Timestep(self._row(), 1, step or None) for step in steps]

        async def submit() -> None:
            x = np.array([timestep.values for timestep in timesteps], np.float64)
            frame = self.engine.submit_frame(keys, x, np.array(steps, np.uint64))
            assert frame is not None
            futures = [asyncio.get_running_loop().create_future() for _ in keys]
            frame.ended.add_done_callback(lambda _: _tell(frame, futures))
            self.sent += map(Sent, keys, timesteps, futures)

        self.runner.run(submit())
        if not number:
            for key in keys:
                self.expected[key] += 1

    @rule(who=_SOMEBODY)
    def step_elsewhere(self, who: int) -> None:
        """Let another process take a step, however many are on their way here."""
        key = self.keys[who % self.sessions]
        row = self._row()
        own = [sent for sent in self.sent if sent.key == key]
        open_ = [sent.future.cancelled() or not sent.future.done() for sent in own]
        least = open_.index(True) if any(open_) else len(own)
        self.runner.run(self.elsewhere.step(key, Timestep(row)))
        self.foreign[key].append(Foreign(np.array([row], np.float32), least, len(own)))
        self.expected[key] += 1

    @rule(who=_SOMEBODY, number=st.integers(1, 9))
    def submit_nonsense(self, who: int, number: int) -> None:
        key, timestep = self.keys[who % self.sessions], Timestep([1.0] * 3, 1, number)
        self.sent.append(Sent(key, timestep, self.engine.submit(key, timestep)))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.sent)).future.cancel()

    @rule(fates=st.lists(st.sampled_from([*Fate, *[Fate.FINE] * 5]), max_size=4))
    def fail(self, fates: list[Fate]) -> None:
        self.store.fates.extend(fates)

    @rule(before=st.integers(0, 9), after=st.integers(0, 9))
    def slow_down(self, before: int, after: int) -> None:
        """Let writes take so many passes of the event loop to the store, one after the other, and replies back."""
        self.store.passes = before, after

    @rule(runs=st.integers(1, 2))
    def fail_the_model(self, runs: int) -> None:
        self.flaky.failing = runs

    @rule(who=_SOMEBODY)
    def forget(self, who: int) -> None:
        self.engine.forget(self.keys[who % self.sessions])

    @rule(passes=st.integers(1, 20))
    def let_it_work(self, passes: int) -> None:
        async def work() -> None:
            for _ in range(passes):
                await asyncio.sleep(0)

        self.runner.run(work())

    @rule()
    def catch_up(self) -> None:
        """Have all that was sent answered before anything else comes."""
        if futures := [sent.future for sent in self.sent]:
            self.runner.run(asyncio.wait(futures, timeout=20))

    @rule()
    def time_passes(self) -> None:
        self.now += PATIENCE_S / 2 + 0.1

    # What must be true afterwards

    def teardown(self) -> None:
        try:
            self.runner.run(self._finish())
        finally:
            self.runner.close()

    async def _finish(self) -> None:
        if self.sent:
            _, unended = await asyncio.wait([sent.future for sent in self.sent], timeout=20)
            assert not unended, "a step was left without an answer"
        self.store.fates.clear()
        stored = await self.store.load(self.keys)
        await self.engine.close()
        self._require_nothing_left()
        await self.elsewhere.close()
        await self.store.close()
        for key, content in zip(self.keys, stored, strict=True):
            assert content is not None
            session = record.decode(content)
            worlds = _worlds([sent for sent in self.sent if sent.key == key], self.foreign[key])
            assert World(session.step, session.state) in worlds, "the store holds what no sequence of steps gives"

    def _require_nothing_left(self) -> None:
        former, succession = self.engine._former, self.engine._pipeline._succession
        kept = former._groups, former._lines._last, succession._waiters, succession._written
        assert not any(kept), "what has ended is forgotten"

    def _row(self) -> list[float]:
        self.rows += 1
        return [self.rows + 0.25, self.rows / 4]  # unlike all others, with sums that are exact in any order


def _tell(frame: Frame, futures: Sequence[asyncio.Future[Result]]) -> None:
    """Let each timestep of a frame know what became of it."""
    for future, outcome in zip(futures, told(frame), strict=True):
        if not future.done():
            future.set_exception(outcome) if isinstance(outcome, ConveyorError) else future.set_result(outcome)


def _worlds(history: Sequence[Sent], foreign: Sequence[Foreign]) -> set[World]:
    """Return what a session may be when all of it has happened."""
    worlds = _with_foreign({(World(0, bytes(8)), 0)}, foreign, 0)
    for number, sent in enumerate(history, start=1):
        after = {(then, taken) for world, taken in worlds for then in _outcomes(world, sent)}
        worlds = _with_foreign(after, foreign, number)
        assert worlds, f"no sequence of steps gives what {sent} was answered"
    return {world for world, taken in worlds if taken == len(foreign)}


def _with_foreign(worlds: set[tuple[World, int]], foreign: Sequence[Foreign], number: int) -> set[tuple[World, int]]:
    """Add the worlds in which more foreign steps were taken, behind so many of its own; drop those that miss some."""
    found = set(worlds)
    for taken, step in enumerate(foreign):
        if step.least <= number <= step.most:
            found |= {(world.after(step.rows)[0], taken + 1) for world, before in found if before == taken}
        elif number > step.most:
            found = {(world, before) for world, before in found if before > taken}
    return found


def _outcomes(world: World, sent: Sent) -> set[World]:
    """Return what a world may be after a step, in the light of its answer; nothing, where that contradicts it."""
    next_, length = sent.timestep.step, sent.timestep.length
    applicable = sent.rows.shape[1] == 2 and next_ in (None, world.step + 1)
    if sent.future.cancelled():
        return {world, world.after(sent.rows)[0]} if applicable else {world}
    error = sent.future.exception()
    if isinstance(error, OutcomeUnknown):
        return {world, world.after(sent.rows)[0]} if applicable else {world}
    if isinstance(error, StepGap | StepConflict):
        return {world} if error.fields["current_step"] == world.step and not applicable else set()
    if error is not None:
        assert isinstance(error, ConveyorError), error
        return {world}
    result = sent.future.result()
    if result.replayed:
        assert next_ is not None
        same = result.step == world.step == next_ + length - 1
        return {world} if same and _last(result) == world.sums else set()
    if not applicable:
        return set()
    after, outputs = world.after(sent.rows)
    told = result.outputs["total"].tobytes()
    right = b"".join(outputs) if sent.timestep.every else outputs[-1]
    return {after} if result.step == after.step and told == right else set()


def _last(result: Result) -> bytes:
    return result.outputs["total"].reshape(-1, 2)[-1].tobytes()


@pytest.fixture(scope="module")
def accumulating(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("models")
    save(accumulator(), Path(folder))
    return ModelRepository.load(folder, max_batch=8).find("accumulator")


class Wide:
    """Frames of so many sessions that they go side by side."""

    max_batch = 7
    sessions = 7
    sizes = (7, 6)


kinds = pytest.mark.parametrize("kind", [(), (Wide,)], ids=["narrow", "wide"])


@kinds
def test_in_memory_every_step_ends_and_counts_once(accumulating: Model, kind: tuple[type, ...]) -> None:
    class InMemory(*kind, Clients):  # type: ignore[misc]
        model = accumulating

        def a_store(self) -> StateStore:
            return MemoryStore()

    with capture_logs():  # each defect of the store is logged with a traceback
        run_state_machine_as_test(InMemory, settings=examples(60, steps=40))


@kinds
def test_in_redis_every_step_ends_and_counts_once(
    accumulating: Model, redis: RedisServer, kind: tuple[type, ...]
) -> None:
    class InRedis(*kind, Clients):  # type: ignore[misc]
        model = accumulating

        def a_store(self) -> StateStore:
            return RedisStore(redis.url)

    with capture_logs():
        run_state_machine_as_test(InRedis, settings=examples(12, steps=25))
