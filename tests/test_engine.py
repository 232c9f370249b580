"""The engine on the demo model: order, fairness, and an end for every step, whatever happens to it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from service.adapters.memory_store import MemoryStore
from service.adapters.metrics import PrometheusObserver
from service.adapters.model_repository import ModelRepository
from service.core.errors import (
    ConveyorError,
    DeadlineExceeded,
    InternalError,
    ModelMismatch,
    OutcomeUnknown,
    Overloaded,
    SessionNotFound,
    ShuttingDown,
    StepConflict,
    StepGap,
    StoreUnavailable,
)
from service.core.ports import Commit, Lost
from service.core.record import encode
from service.core.session import ModelRef, Result, Session, SessionKey, Timestep
from service.engine import Engine
from service.sessions import Sessions
from tests.adapters.graphs import accumulator, save

MODELS = Path(__file__).parent.parent / "models"
X = [0.7, 12.0, 54.0, 76.0, 1.0, 0.0, 1.0, 0.0]


class CountingStore(MemoryStore):
    """The in-process store, counting its exchanges, which can be made to fail or to take their time."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[int] = []
        self.commits: list[int] = []
        self.failure: Exception | None = None
        self.failures: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived = asyncio.Event()

    async def load(self, keys: Sequence[SessionKey]) -> list:  # type: ignore[type-arg]
        self.loads.append(len(keys))
        return await super().load(keys)

    async def commit(self, commits: Sequence[Commit]) -> list[Lost | ConveyorError | None]:
        self.commits.append(len(commits))
        self.arrived.set()
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        if self.failure is not None:
            raise self.failure
        return await super().commit(commits)


@pytest.fixture(scope="module")
def models() -> ModelRepository:
    return ModelRepository.load(MODELS, max_batch=8)


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
async def engine(store: CountingStore, models: ModelRepository) -> AsyncIterator[Engine]:
    engine = Engine(store, models, PrometheusObserver(), max_batch=8, max_queue=600)
    yield engine
    store.gate.set()
    store.failure = None
    await engine.close()


@pytest.fixture
def sessions(store: CountingStore, models: ModelRepository, engine: Engine) -> Sessions:
    return Sessions(store, models, engine, default_ttl_s=60, max_ttl_s=600, max_history=100)


def key(name: object = "pump") -> SessionKey:
    return SessionKey("t", str(name))


def one(step: int | None = None, *, shift: float = 0.0) -> Timestep:
    return Timestep([X[0] + shift, *X[1:]], 1, step)


def chunk(length: int, step: int | None = None) -> Timestep:
    return Timestep([X] * length, length, step)


async def outcomes(engine: Engine, *steps: Timestep, of: SessionKey | None = None) -> list[Result | BaseException]:
    return await asyncio.gather(*(engine.submit(of or key(), step) for step in steps), return_exceptions=True)


async def test_steps_that_are_ready_together_are_one_read_and_one_commit(
    engine: Engine, sessions: Sessions, store: CountingStore
) -> None:
    for i in range(8):
        await sessions.create(key(i), "hotspot")
    store.loads.clear()
    results = await asyncio.gather(*(engine.step(key(i), one()) for i in range(8)))
    assert [result.step for result in results] == [1] * 8
    assert (store.loads, store.commits) == ([8], [8])
    await asyncio.gather(*(engine.step(key(i), one()) for i in range(8)))
    assert (store.loads, store.commits) == ([8], [8, 8]), "what was committed last need not be read"


async def test_queued_steps_of_a_session_run_as_one_and_are_answered_one_by_one(
    engine: Engine, sessions: Sessions, store: CountingStore
) -> None:
    await sessions.create(key("together"), "hotspot")
    await sessions.create(key("apart"), "hotspot")
    together = await outcomes(engine, *(one(shift=i / 10) for i in range(5)), of=key("together"))
    assert store.commits == [1]
    apart = [await engine.step(key("apart"), one(shift=i / 10)) for i in range(5)]
    for a, b in zip(together, apart, strict=True):
        assert isinstance(a, Result)
        assert a.step == b.step
        np.testing.assert_array_equal(a.outputs["hot_spot"], b.outputs["hot_spot"])


async def test_a_step_sent_twice_is_applied_once(engine: Engine, sessions: Sessions) -> None:
    await sessions.create(key(), "hotspot")
    first, twin = await outcomes(engine, one(1), one(1))
    later = await engine.step(key(), one(1))
    for result in (twin, later):
        assert isinstance(first, Result)
        assert isinstance(result, Result)
        assert result.replayed
        assert result.step == 1
        np.testing.assert_array_equal(result.outputs["hot_spot"], first.outputs["hot_spot"])
    assert (await sessions.get(key())).step == 1


async def test_steps_from_many_clients_are_each_applied_once(engine: Engine, sessions: Sessions) -> None:
    await sessions.create(key(), "hotspot")
    results = await outcomes(engine, *(one() for _ in range(100)))
    assert [result.step for result in results if isinstance(result, Result)] == list(range(1, 101))


async def test_refusals_leave_the_others_of_the_batch_alone(engine: Engine, sessions: Sessions) -> None:
    await sessions.create(key(), "hotspot")
    await sessions.create(key("other"), "hotspot")
    futures = [
        engine.submit(key(), one(1)),
        engine.submit(key(), one(7)),
        engine.submit(key(), Timestep([1.0])),
        engine.submit(key("nobody"), one()),
        engine.submit(key("other"), one()),
        engine.submit(key(), one(2)),
    ]
    results = await asyncio.gather(*futures, return_exceptions=True)
    codes = [result.step if isinstance(result, Result) else getattr(result, "code", None) for result in results]
    assert codes == [1, "step_gap", "invalid_timestep", "session_not_found", 1, 2]


async def test_a_writer_elsewhere_is_noticed_and_its_state_taken_over(
    engine: Engine, sessions: Sessions, store: CountingStore, models: ModelRepository
) -> None:
    elsewhere = Engine(store, models, PrometheusObserver())
    await sessions.create(key(), "hotspot")
    await sessions.create(key("alone"), "hotspot")
    for i in range(6):
        replica = engine if i % 2 else elsewhere
        alternating = await replica.step(key(), one(i + 1, shift=i / 10))
        alone = await engine.step(key("alone"), one(i + 1, shift=i / 10))
        assert alternating.step == i + 1
        np.testing.assert_array_equal(alternating.outputs["hot_spot"], alone.outputs["hot_spot"])
    await elsewhere.close()


async def test_no_error_is_told_on_the_word_of_an_old_memory(
    engine: Engine, sessions: Sessions, store: CountingStore, models: ModelRepository
) -> None:
    elsewhere = Engine(store, models, PrometheusObserver())
    await sessions.create(key(), "hotspot")
    await engine.step(key(), one(1))
    await elsewhere.step(key(), one(2))
    assert (await engine.step(key(), one(3))).step == 3, "the engine remembers step 1, where 3 would be a gap"
    await elsewhere.step(key(), one(4))
    with pytest.raises(StepConflict) as caught:
        await engine.step(key(), one(3))
    assert caught.value.fields["current_step"] == 4
    await elsewhere.close()


async def test_a_session_that_was_deleted_elsewhere_is_gone(
    engine: Engine, sessions: Sessions, store: CountingStore
) -> None:
    await sessions.create(key(), "hotspot")
    await engine.step(key(), one())
    await store.delete(key())
    with pytest.raises(SessionNotFound):
        await engine.step(key(), one())


async def test_a_reset_starts_a_new_life(engine: Engine, sessions: Sessions) -> None:
    await sessions.create(key(), "hotspot")
    first = await engine.step(key(), one(1))
    await sessions.reset(key())
    with pytest.raises(StepGap):
        await engine.step(key(), one(2))
    again = await engine.step(key(), one(1))
    assert not again.replayed
    np.testing.assert_array_equal(again.outputs["hot_spot"], first.outputs["hot_spot"])


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(
    engine: Engine, sessions: Sessions, store: CountingStore
) -> None:
    await sessions.create(key(), "hotspot")
    store.gate.clear()
    admitted = [engine.submit(key(), chunk(100)) for _ in range(6)]
    with pytest.raises(Overloaded) as caught:
        engine.submit(key("other"), one())
    assert caught.value.retry_after_s > 0
    store.gate.set()
    assert [result.step for result in await asyncio.gather(*admitted)] == [100, 200, 300, 400, 500, 600]


async def test_a_store_that_fails_fails_the_batch_and_nothing_advances(
    engine: Engine, sessions: Sessions, store: CountingStore
) -> None:
    await sessions.create(key(), "hotspot")
    store.failure = StoreUnavailable("away")
    assert [type(result) for result in await outcomes(engine, one(1), one(2))] == [StoreUnavailable] * 2
    store.failure = None
    assert (await engine.step(key(), one(1))).step == 1


async def test_each_step_is_told_what_became_of_its_own_write(store: CountingStore, models: ModelRepository) -> None:
    """A large batch is written in two parts, which may fail in different ways."""
    engine = Engine(store, models, PrometheusObserver(), max_batch=64)
    sessions = Sessions(store, models, engine, default_ttl_s=60, max_ttl_s=600, max_history=100)
    for i in range(64):
        await sessions.create(key(i), "hotspot")
    store.failures = [StoreUnavailable("away"), OutcomeUnknown("away")]
    results = await asyncio.gather(*(engine.submit(key(i), one()) for i in range(64)), return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable] * 32 + [OutcomeUnknown] * 32
    await engine.close()


async def test_a_defect_ends_every_step_in_an_error(engine: Engine, sessions: Sessions, store: CountingStore) -> None:
    await sessions.create(key(), "hotspot")
    store.failure = ZeroDivisionError("a defect")
    assert [type(result) for result in await outcomes(engine, one(), one())] == [InternalError] * 2
    store.failure = None
    assert (await engine.step(key(), one())).step == 1


async def test_a_client_that_leaves_harms_nobody(engine: Engine, sessions: Sessions, store: CountingStore) -> None:
    await sessions.create(key(), "hotspot")
    store.gate.clear()
    leaving, staying = engine.submit(key(), one()), engine.submit(key(), one())
    await store.arrived.wait()
    leaving.cancel()
    store.gate.set()
    assert (await staying).step == 2


async def test_a_turn_whose_clients_all_left_and_which_lost_does_not_come_back(
    engine: Engine, sessions: Sessions, store: CountingStore, models: ModelRepository
) -> None:
    await sessions.create(key(), "hotspot")
    await engine.step(key(), one())
    elsewhere = Engine(store, models, PrometheusObserver())
    await elsewhere.step(key(), one())
    await elsewhere.close()
    store.gate.clear()
    store.arrived.clear()
    leaving = engine.submit(key(), one())
    await store.arrived.wait()
    leaving.cancel()
    store.gate.set()
    assert (await engine.step(key(), one(3))).step == 3


async def test_a_step_that_waited_too_long_is_not_run(store: CountingStore, models: ModelRepository) -> None:
    now = 0.0
    engine = Engine(store, models, PrometheusObserver(), step_timeout_s=5, clock=lambda: now)
    sessions = Sessions(store, models, engine, default_ttl_s=60, max_ttl_s=600, max_history=100)
    await sessions.create(key(), "hotspot")
    store.gate.clear()
    running = engine.submit(key(), one())
    await store.arrived.wait()
    late = engine.submit(key(), one())
    now = 6.0
    store.gate.set()
    assert (await running).step == 1
    with pytest.raises(DeadlineExceeded):
        await late
    assert (await sessions.get(key())).step == 1
    await engine.close()


async def test_closing_answers_what_was_admitted_and_admits_nothing_more(
    store: CountingStore, models: ModelRepository
) -> None:
    engine = Engine(store, models, PrometheusObserver())
    sessions = Sessions(store, models, engine, default_ttl_s=60, max_ttl_s=600, max_history=100)
    await sessions.create(key(), "hotspot")
    admitted = [engine.submit(key(), one()) for _ in range(200)]
    await engine.close()
    assert [future.result().step for future in admitted] == list(range(1, 201))
    with pytest.raises(ShuttingDown):
        engine.submit(key(), one())


async def test_a_state_of_another_file_is_refused(engine: Engine, store: CountingStore) -> None:
    foreign = Session(ModelRef("hotspot", "1", b"otherone"), 1, 0, 0, 0, 60, bytes(4 * 256), b"")
    await store.create(key(), encode(foreign))
    with pytest.raises(ModelMismatch):
        await engine.step(key(), one())


async def test_a_session_that_became_another_models_is_judged_by_that_model(
    tmp_path: Path, store: CountingStore
) -> None:
    save(accumulator(), tmp_path, "sum")
    save((MODELS / "hotspot" / "1" / "model.onnx").read_bytes(), tmp_path, "hotspot")
    models = ModelRepository.load(tmp_path, max_batch=2)
    engine, elsewhere = (Engine(store, models, PrometheusObserver()) for _ in range(2))
    sessions = Sessions(store, models, elsewhere, default_ttl_s=60, max_ttl_s=600, max_history=100)
    await sessions.create(key(), "hotspot")
    await engine.step(key(), one())
    await sessions.delete(key())
    await sessions.create(key(), "sum")
    assert (await engine.step(key(), Timestep([1.0, 2.0]))).outputs["total"].tolist() == [1.0, 2.0]
    for each in (engine, elsewhere):
        await each.close()


@pytest.fixture
async def summing(tmp_path: Path, store: CountingStore) -> AsyncIterator[tuple[Engine, Sessions]]:
    """An engine for a model that overflows when it is fed enough large numbers."""
    save(accumulator(gain=1e30), tmp_path, "sum")
    models = ModelRepository.load(tmp_path, max_batch=4)
    engine = Engine(store, models, PrometheusObserver())
    yield engine, Sessions(store, models, engine, default_ttl_s=60, max_ttl_s=600, max_history=100)
    await engine.close()


async def test_a_step_without_a_finite_answer_is_refused_alone(summing: tuple[Engine, Sessions]) -> None:
    engine, sessions = summing
    await sessions.create(key(), "sum")
    await sessions.create(key("other"), "sum")
    fine, huge = Timestep([1.0, 1.0]), Timestep([1e18, 1.0])
    futures = [engine.submit(key(), step) for step in (fine, fine, huge, fine)] + [engine.submit(key("other"), fine)]
    results = await asyncio.gather(*futures, return_exceptions=True)
    codes = [result.step if isinstance(result, Result) else getattr(result, "code", None) for result in results]
    assert codes == [1, 2, "non_finite_output", 3, 1]
    assert (await sessions.get(key())).step == 3


async def test_a_step_is_not_refused_for_a_state_that_is_no_more(
    summing: tuple[Engine, Sessions], store: CountingStore, tmp_path: Path
) -> None:
    engine, sessions = summing
    await sessions.create(key(), "sum")
    for _ in range(3):
        await engine.step(key(), Timestep([1e8, 1.0]))
    models = ModelRepository.load(tmp_path, max_batch=1)
    elsewhere = Engine(store, models, PrometheusObserver())
    await Sessions(store, models, elsewhere, default_ttl_s=60, max_ttl_s=600, max_history=9).reset(key())
    await elsewhere.close()
    assert (await engine.step(key(), Timestep([1e8, 1.0]))).step == 1


async def test_closing_ends_in_time_where_the_store_hangs(store: CountingStore, models: ModelRepository) -> None:
    engine = Engine(store, models, PrometheusObserver())
    sessions = Sessions(store, models, engine, default_ttl_s=60, max_ttl_s=600, max_history=100)
    await sessions.create(key(), "hotspot")
    store.gate.clear()
    writing = engine.submit(key(), one())
    await store.arrived.wait()
    waiting = engine.submit(key(), one())
    async with asyncio.timeout(2):
        await engine.close(0.1)
    results = await asyncio.gather(writing, waiting, return_exceptions=True)
    assert [type(result) for result in results] == [OutcomeUnknown, ShuttingDown]


async def test_a_timestep_without_a_finite_answer_leaves_the_session_alone(engine: Engine, sessions: Sessions) -> None:
    """The largest readings that are believed give a finite answer or an error, and in no case a ruined state."""
    await sessions.create(key(), "hotspot")
    (result,) = await outcomes(engine, Timestep([1e18] * 8))
    state = np.frombuffer((await sessions.get(key())).state, np.float32)
    assert np.isfinite(state).all()
    assert isinstance(result, ConveyorError) or np.isfinite(result.outputs["hot_spot"]).all()  # type: ignore[union-attr]
