"""The engine that is sent more than it can do: who is refused, when, and that nobody else notices."""

import asyncio
import itertools

import pytest

from service.adapters.metrics import PrometheusObserver
from service.adapters.model_repository import ModelRepository
from service.core.errors import Overloaded
from service.core.session import Result, SessionKey
from service.engine import Engine
from service.sessions import Sessions
from tests.engines import CountingStore, chunk, key, one


def of(tenant: str, name: object) -> SessionKey:
    return SessionKey(tenant, str(name))


def sessions_of(engine: Engine, store: CountingStore, models: ModelRepository) -> Sessions:
    return Sessions(store, models, engine, default_ttl_s=60, max_ttl_s=600, max_history=100)


async def test_a_full_queue_has_room_for_a_neighbour(store: CountingStore, models: ModelRepository) -> None:
    engine = Engine(store, models, PrometheusObserver(), max_batch=4, max_queue=40)
    sessions = sessions_of(engine, store, models)
    for tenant in ("flooder", "modest"):
        for number in range(50):
            await sessions.create(of(tenant, number), "hotspot")
    flood = [engine.submit(of("flooder", number), one()) for number in range(40)]
    with pytest.raises(Overloaded):
        engine.submit(of("flooder", 40), one())
    modest = [engine.submit(of("modest", number), one()) for number in range(20)]
    with pytest.raises(Overloaded):
        engine.submit(of("modest", 20), one())
    results = await asyncio.gather(*modest, *flood)
    assert [result.step for result in results] == [1] * 60
    await engine.close()


async def test_a_neighbours_step_is_in_the_next_batch(store: CountingStore, models: ModelRepository) -> None:
    engine = Engine(store, models, PrometheusObserver(), max_batch=8)
    sessions = sessions_of(engine, store, models)
    await sessions.create(of("modest", 0), "hotspot")
    for number in range(200):
        await sessions.create(of("flooder", number), "hotspot")
    flood = [engine.submit(of("flooder", number), one()) for number in range(200)]
    await store.arrived.wait()
    await engine.step(of("modest", 0), one())
    assert sum(step.done() for step in flood) <= 3 * 8
    await asyncio.gather(*flood)
    await engine.close()


async def test_many_tenants_cannot_fill_the_queue_without_bound(store: CountingStore, models: ModelRepository) -> None:
    engine = Engine(store, models, PrometheusObserver(), max_queue=60)
    store.gate.clear()
    admitted = refused = 0
    for number in range(2000):
        try:
            engine.submit(of(f"tenant-{number % 20}", number), one())
            admitted += 1
        except Overloaded:
            refused += 1
    assert admitted <= 60 + 20
    assert refused == 2000 - admitted
    store.gate.set()
    await engine.close()


async def test_a_queue_that_stays_is_refused_at_once_and_a_burst_is_not(
    store: CountingStore, models: ModelRepository
) -> None:
    times = itertools.count()
    clock = lambda: next(times) * 0.02  # noqa: E731  # of every look at the clock, 20 ms have passed
    engine = Engine(store, models, PrometheusObserver(), max_batch=8, max_wait_s=1e-9, step_timeout_s=1e9, clock=clock)
    sessions = sessions_of(engine, store, models)
    for number in range(8):
        await sessions.create(key(number), "hotspot")
    await asyncio.gather(*(engine.submit(key(number), chunk(16)) for number in range(8)))  # now it knows what one costs
    burst = [engine.submit(key(number % 8), one()) for number in range(4000)]
    refusal = None
    while refusal is None:
        await asyncio.sleep(0)
        refusal = engine.refusal("t")
        assert not all(step.done() for step in burst), "nothing was refused"
    assert refusal.retry_after_s > 0
    assert not engine.has_room("t")
    assert all(isinstance(result, Result) for result in await asyncio.gather(*burst)), "who was admitted is served"
    assert (await engine.step(key(0), one())).step == 16 + 500 + 1
    await engine.close()


async def test_connections_that_are_held_are_released_with_the_next_batch(
    store: CountingStore, models: ModelRepository
) -> None:
    engine = Engine(store, models, PrometheusObserver(), max_queue=1)
    await sessions_of(engine, store, models).create(key(), "hotspot")
    running = engine.submit(key(), one())
    refused = 0
    while not engine.strained:
        assert engine.refusal(key().tenant) is not None
        refused += 1
    assert refused == 64
    released = asyncio.Event()
    engine.hold(released.set)
    await running
    async with asyncio.timeout(5):
        await released.wait()
    assert not engine.strained
    await engine.close()
