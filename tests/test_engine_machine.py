"""The engine under random clients, cancellations, and a store and a model that fail, against a sequential oracle.

After all of it every future has ended, and every answer is one that a single process without faults would have given,
taking a session's steps one after the other in the order in which they were submitted. A step whose client left, or
was told that its outcome is unknown, was applied or was not: the oracle keeps a world for each, and drops those that a
later answer contradicts. What the store holds in the end must be one of the worlds that are left.
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
from service.sessions import Sessions
from tests.adapters.graphs import accumulator, save
from tests.budget import examples
from tests.faulty_store import Fate, FaultyStore
from tests.servers import RedisServer

SESSIONS = 4
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


class Clients(RuleBasedStateMachine):
    """Random clients of one engine. Subclasses say where its sessions are."""

    model: Model

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.now = 0.0
        self.flaky = FlakyModel(self.model)
        self.sent: list[Sent] = []
        self.rows = 0
        tenant = f"t{uuid.uuid4().hex}"
        self.keys = [SessionKey(tenant, str(i)) for i in range(SESSIONS)]
        self.expected = dict.fromkeys(self.keys, 0)
        self.runner.run(self._start())

    def a_store(self) -> StateStore:
        raise NotImplementedError

    async def _start(self) -> None:
        self.store = FaultyStore(self.a_store())
        models = OneModel(self.flaky)
        self.engine = Engine(
            self.store, models, PrometheusObserver(), max_batch=3, step_timeout_s=PATIENCE_S, clock=lambda: self.now
        )
        sessions = Sessions(self.store, models, self.engine, default_ttl_s=600, max_ttl_s=600, max_history=1)
        for key in self.keys:
            await sessions.create(key, "accumulator")

    # What clients, the store and the model do

    @rule(
        who=st.integers(0, SESSIONS - 1),
        length=st.sampled_from([1, 1, 1, 2, 70]),
        number=st.sampled_from([None, 0, 0, 0, -1, -2, 2]),
        every=st.booleans(),
    )
    def submit(self, who: int, length: int, number: int | None, every: bool) -> None:
        """Send a step without a number, or with one that is so far from the next as the client believes it to be."""
        key = self.keys[who]
        self.rows += 1
        row = [self.rows + 0.25, self.rows / 4]  # unlike all others, with sums that are exact in any order
        step = None if number is None else max(1, self.expected[key] + 1 + number)
        timestep = Timestep([row] * length if length > 1 else row, length, step, every)
        if step is None or number == 0:
            self.expected[key] += length
        self.sent.append(Sent(key, timestep, self.engine.submit(key, timestep)))

    @rule(who=st.integers(0, SESSIONS - 1), number=st.integers(1, 9))
    def submit_nonsense(self, who: int, number: int) -> None:
        timestep = Timestep([1.0] * 3, 1, number)
        self.sent.append(Sent(self.keys[who], timestep, self.engine.submit(self.keys[who], timestep)))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.sent)).future.cancel()

    @rule(fates=st.lists(st.sampled_from(Fate), max_size=4))
    def fail(self, fates: list[Fate]) -> None:
        self.store.fates.extend(fates)

    @rule(runs=st.integers(1, 2))
    def fail_the_model(self, runs: int) -> None:
        self.flaky.failing = runs

    @rule(key=st.integers(0, SESSIONS - 1))
    def forget(self, key: int) -> None:
        self.engine.forget(self.keys[key])

    @rule(passes=st.integers(1, 12))
    def let_it_work(self, passes: int) -> None:
        async def work() -> None:
            for _ in range(passes):
                await asyncio.sleep(0)

        self.runner.run(work())

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
        await self.store.close()
        for key, content in zip(self.keys, stored, strict=True):
            assert content is not None
            session = record.decode(content)
            worlds = self._worlds([sent for sent in self.sent if sent.key == key])
            assert World(session.step, session.state) in worlds, "the store holds what no sequence of steps gives"

    def _worlds(self, history: list[Sent]) -> set[World]:
        worlds = {World(0, bytes(8))}
        for sent in history:
            after = set().union(*(_outcomes(world, sent) for world in worlds))
            assert after, f"no sequence of steps gives what {sent} was answered"
            worlds = after
        return worlds


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
    return ModelRepository.load(folder, max_batch=3).find("accumulator")


def test_in_memory_every_step_ends_and_counts_once(accumulating: Model) -> None:
    class InMemory(Clients):
        model = accumulating

        def a_store(self) -> StateStore:
            return MemoryStore()

    with capture_logs():  # each defect of the store is logged with a traceback
        run_state_machine_as_test(InMemory, settings=examples(60, steps=40))


def test_in_redis_every_step_ends_and_counts_once(accumulating: Model, redis: RedisServer) -> None:
    class InRedis(Clients):
        model = accumulating

        def a_store(self) -> StateStore:
            return RedisStore(redis.url)

    with capture_logs():
        run_state_machine_as_test(InRedis, settings=examples(12, steps=25))
