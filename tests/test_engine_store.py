"""The engine where others write too, and where the store fails: whose state counts, and what a step is told."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from service.adapters.metrics import PrometheusObserver
from service.adapters.model_repository import ModelRepository
from service.core.errors import (
    InvalidRecord,
    ModelMismatch,
    OutcomeUnknown,
    SessionNotFound,
    ShuttingDown,
    StepConflict,
    StepGap,
    StoreUnavailable,
)
from service.core.record import encode
from service.core.session import ModelRef, Result, Session, SessionKey, Timestep
from service.engine import Engine
from service.sessions import Sessions
from tests.adapters.graphs import accumulator, save
from tests.engines import MODELS, CountingStore, Twin, key, one, opened, outcomes


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


async def test_a_store_that_fails_fails_the_batch_and_nothing_advances(
    engine: Engine, sessions: Sessions, store: CountingStore
) -> None:
    await sessions.create(key(), "hotspot")
    store.failure = StoreUnavailable("away")
    assert [type(result) for result in await outcomes(engine, one(1), one(2))] == [StoreUnavailable] * 2
    store.failure = None
    assert (await engine.step(key(), one(1))).step == 1


async def test_where_a_session_is_is_not_told_before_it_is_there(
    engine: Engine, sessions: Sessions, store: CountingStore
) -> None:
    """A step out of order, in one turn with a step that is run and whose write fails, fails with it."""
    await sessions.create(key(), "hotspot")
    store.failures = [StoreUnavailable("away")]
    assert [type(result) for result in await outcomes(engine, one(), one(3))] == [StoreUnavailable] * 2
    ran, gap = await outcomes(engine, one(), one(3))
    assert isinstance(ran, Result)
    assert isinstance(gap, StepGap)
    assert gap.fields["current_step"] == ran.step == 1


async def test_each_step_is_told_what_became_of_its_own_write(store: CountingStore, models: ModelRepository) -> None:
    """A large batch is written in parts, which may fail in different ways."""
    engine = Engine(store, models, PrometheusObserver(), max_batch=256)
    sessions = Sessions(store, models, engine, default_ttl_s=60, max_ttl_s=600, max_history=100)
    for i in range(256):
        await sessions.create(key(i), "hotspot")
    store.failures = [StoreUnavailable("away"), OutcomeUnknown("away")]
    results = await asyncio.gather(*(engine.submit(key(i), one()) for i in range(256)), return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable] * 128 + [OutcomeUnknown] * 128
    await engine.close()


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


async def test_a_broken_record_that_a_commit_brings_back_is_not_run(
    engine: Engine, sessions: Sessions, store: CountingStore
) -> None:
    await sessions.create(key(), "hotspot")
    await engine.step(key(), one())
    (record,) = await store.load([key()])
    broken = record[:20] + bytes(8) + record[28:-4]  # another's nonce, and a number too few
    await store.delete(key())
    assert await store.create(key(), broken) is None
    with pytest.raises(InvalidRecord):
        await engine.step(key(), one())
    assert await store.load([key()]) == [broken]


@pytest.mark.parametrize("count", [2, 8], ids=["as turns", "side by side"])
async def test_sessions_of_one_hash_are_not_mistaken_for_one_another(
    engine: Engine, sessions: Sessions, store: CountingStore, models: ModelRepository, count: int
) -> None:
    """What is remembered is found by a hash, so what is found may be another's. Nobody is told what came of that."""
    names = [str(i) for i in range(count)]
    twins = [Twin("t", f"twin {name}") for name in names]
    await opened(sessions, *names)
    for twin in twins:
        await sessions.open(twin, "hotspot", ttl_s=None)

    async def told(by: Engine, keys: Sequence[SessionKey], step: int) -> list[Result]:
        sent = [one(step if i % 2 else None, shift=i) for i in range(count)]
        return await asyncio.gather(*(by.submit(key, each) for key, each in zip(keys, sent, strict=True)))

    elsewhere = Engine(store, models, PrometheusObserver())  # which reads all of them at once
    for step in range(1, 9):
        by = elsewhere if step in (4, 5, 6) else engine
        expected, found = await told(by, [key(name) for name in names], step), await told(by, twins, step)
        assert [result.step for result in found] == [step] * count
        for one_twin, another in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one_twin.outputs["hot_spot"], another.outputs["hot_spot"])
    with pytest.raises(SessionNotFound):
        await engine.step(Twin("t", "gone"), one())
    await elsewhere.close()
