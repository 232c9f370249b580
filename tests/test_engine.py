"""The engine on the demo model: order, fairness, and an end for every step, whatever happens to it."""

import asyncio

import numpy as np
import pytest

from service.adapters.metrics import PrometheusObserver
from service.adapters.model_repository import ModelRepository
from service.core.errors import (
    DeadlineExceeded,
    InternalError,
    Overloaded,
    ShuttingDown,
    StepGap,
)
from service.core.session import Result, Timestep
from service.engine import Engine
from service.sessions import Sessions
from tests.engines import CountingStore, chunk, key, one, outcomes


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


@pytest.mark.parametrize("passes", range(12))
async def test_whenever_it_is_ended_every_step_has_ended(
    store: CountingStore, models: ModelRepository, passes: int
) -> None:
    """Also where the end comes between the making of a batch's task and its first line."""
    engine = Engine(store, models, PrometheusObserver())
    sessions = Sessions(store, models, engine, default_ttl_s=60, max_ttl_s=600, max_history=100)
    for name in range(3):
        await sessions.create(key(name), "hotspot")
    await asyncio.gather(*(engine.submit(key(name), one()) for name in range(3)))
    store.gate.clear()
    for _ in range(passes):
        await asyncio.sleep(0)
    last = [engine.submit(key(name), one()) for name in range(3) for _ in range(2)]
    await engine.close(0.0)
    assert all(step.done() for step in last)
    await engine.close()
