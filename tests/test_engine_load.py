"""The engine that is sent more than it can do: who is refused, when, and that nobody else notices."""

import asyncio
import itertools
from collections.abc import Callable

import pytest

from service.adapters.metrics import PrometheusObserver
from service.adapters.model_repository import ModelRepository
from service.core.errors import ConveyorError, Overloaded
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


def impatient(store: CountingStore, models: ModelRepository, *, max_batch: int) -> Engine:
    """An engine for which next to nothing may wait, and which sees 20 ms pass with every look at the clock."""
    times = itertools.count()
    return Engine(
        store,
        models,
        PrometheusObserver(),
        max_batch=max_batch,
        max_wait_s=1e-9,
        step_timeout_s=1e9,
        clock=lambda: next(times) * 0.02,
    )


async def test_a_queue_that_stays_is_refused_at_once_and_a_burst_is_not(
    store: CountingStore, models: ModelRepository
) -> None:
    engine = impatient(store, models, max_batch=8)
    sessions = sessions_of(engine, store, models)
    for number in range(8):
        await sessions.create(key(number), "hotspot")
    await asyncio.gather(*(engine.submit(key(number), chunk(16)) for number in range(8)))  # now it knows what one costs
    burst = [engine.submit(key(number % 8), one()) for number in range(4000)]
    while engine.has_room("t"):
        await asyncio.sleep(0)
        assert not all(step.done() for step in burst), "there was room for all"
    with pytest.raises(Overloaded) as refused:
        await engine.enter("t")
    assert refused.value.retry_after_s > 0
    assert not engine.has_room("t")
    assert all(isinstance(result, Result) for result in await asyncio.gather(*burst)), "who was admitted is served"
    assert (await engine.step(key(0), one())).step == 16 + 500 + 1
    await engine.close()


async def test_a_process_that_takes_sessions_one_by_one_learns_what_they_cost(
    store: CountingStore, models: ModelRepository
) -> None:
    engine = impatient(store, models, max_batch=1)
    sessions = sessions_of(engine, store, models)
    for number in range(200):
        await sessions.create(key(number), "hotspot")
    burst = [engine.submit(key(number), one()) for number in range(200)]
    while engine.has_room("t"):
        await asyncio.sleep(0)
        assert not all(step.done() for step in burst), "there was room for all"
    assert all(isinstance(result, Result) for result in await asyncio.gather(*burst)), "who was admitted is served"
    await engine.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110  # no event tells of the engine's passes
            await asyncio.sleep(0)


class Waiting:
    """Somebody at the entrance, who notes what becomes of them, and submits a step if they are to."""

    def __init__(self, name: str, told: list[str], submit: Callable[[], object] = lambda: None) -> None:
        self._name = name
        self._told = told
        self._submit = submit

    def let_in(self) -> None:
        self._told.append(self._name)
        self._submit()

    def turn_away(self, refusal: Overloaded) -> None:
        assert refusal.retry_after_s > 0
        self._told.append(f"{self._name} refused")


async def test_who_waits_for_room_is_let_in_when_there_is_some(store: CountingStore, models: ModelRepository) -> None:
    engine = Engine(store, models, PrometheusObserver(), max_queue=2)
    await sessions_of(engine, store, models).create(key(), "hotspot")
    running = [engine.submit(key(), one()) for _ in range(2)]
    told: list[str] = []
    for name in ("first", "second"):
        engine.wait("t", Waiting(name, told, lambda: running.append(engine.submit(key(), one()))))
    assert told == []
    await engine.settle()
    await asyncio.gather(*running)
    assert told == ["first", "second"]
    assert len(running) == 4
    await engine.close()


async def test_room_is_kept_for_who_was_let_in(store: CountingStore, models: ModelRepository) -> None:
    """A request that was let in submits its step in the next pass of the event loop, and others ask before that."""
    engine = Engine(store, models, PrometheusObserver(), max_queue=1)
    await sessions_of(engine, store, models).create(key(), "hotspot")
    running = [engine.submit(key(), one())]
    loop, told = asyncio.get_running_loop(), list[str]()

    def submit() -> None:
        assert not engine.has_room("t")
        assert engine.admit("t")
        running.append(engine.submit(key(), one()))
        assert not engine.admit("t")

    for name in ("first", "second"):
        engine.wait("t", Waiting(name, told, lambda: loop.call_soon(submit)))
    await until(lambda: len(running) == 3)
    assert [result.step for result in await asyncio.gather(*running)] == [1, 2, 3]
    assert told == ["first", "second"]
    await engine.close()


async def test_refusing_has_a_bound_and_the_others_wait(store: CountingStore, models: ModelRepository) -> None:
    engine = Engine(store, models, PrometheusObserver(), max_queue=1, clock=lambda: 0.0)
    await sessions_of(engine, store, models).create(key(), "hotspot")
    store.gate.clear()
    running = engine.submit(key(), one())
    told: list[str] = []
    for number in range(300):
        engine.ask("t", Waiting(str(number), told))
    assert told == [f"{number} refused" for number in range(256)], "time stands still"
    store.gate.set()
    await running
    await until(lambda: len(told) == 300)
    assert told[256:] == [str(number) for number in range(299, 255, -1)], "whoever has waited least is let in first"
    await engine.close()


async def test_who_waits_with_nothing_to_submit_keeps_nobody_waiting(
    store: CountingStore, models: ModelRepository
) -> None:
    engine = Engine(store, models, PrometheusObserver(), max_queue=1)
    await sessions_of(engine, store, models).create(key(), "hotspot")
    told: list[str] = []
    running = engine.submit(key(), one())
    for name in "abcde":
        engine.wait("t", Waiting(name, told))
    await running
    await until(lambda: len(told) == 5)
    await engine.close()


async def test_who_waits_for_an_engine_that_is_closed_is_told(store: CountingStore, models: ModelRepository) -> None:
    engine = Engine(store, models, PrometheusObserver(), max_queue=1)
    await sessions_of(engine, store, models).create(key(), "hotspot")
    store.gate.clear()
    running = engine.submit(key(), one())
    told: list[str] = []
    engine.wait("t", Waiting("waits", told))
    leaves = Waiting("leaves", told)
    engine.wait("t", leaves)
    engine.leave("t", leaves)
    closing = asyncio.create_task(engine.close(timeout_s=0.1))
    await until(lambda: told == ["waits"])
    engine.wait("t", Waiting("comes meanwhile", told))
    await closing
    assert told == ["waits", "comes meanwhile"]
    with pytest.raises(ConveyorError):
        await running


@pytest.mark.parametrize(("ready", "begun"), [(7, [8]), (8, [8, 8])])
async def test_while_a_batch_is_being_written_the_next_one_begins_for_a_crowd(
    engine: Engine, sessions: Sessions, store: CountingStore, ready: int, begun: list[int]
) -> None:
    names = range(8 + ready)
    for name in names:
        await sessions.create(key(name), "hotspot")
    await asyncio.gather(*(engine.step(key(name), one()) for name in names))  # now they are remembered
    store.commits.clear()
    store.arrived.clear()
    store.gate.clear()
    first = [engine.submit(key(name), one()) for name in names[:8]]
    await store.arrived.wait()
    second = [engine.submit(key(name), one()) for name in names[8:]]
    behind = engine.submit(key(0), one())  # of a session that is being written
    for _ in range(20):
        await asyncio.sleep(0)
    assert store.commits == begun
    assert not any(step.done() for step in [*first, *second, behind])
    store.gate.set()
    assert [result.step for result in await asyncio.gather(*first, *second, behind)] == [2] * len(names) + [3]
