"""Frames of the same sessions that follow one another: the next is written before the last is acknowledged."""

import asyncio
from collections.abc import Sequence
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pytest

from service.adapters.memory_store import MemoryStore
from service.adapters.metrics import PrometheusObserver
from service.adapters.model_repository import ModelRepository
from service.adapters.redis_store import RedisStore
from service.core.errors import ConveyorError, StoreFull
from service.core.ports import Commit, Lost
from service.core.session import Result, SessionKey
from service.engine import Engine
from service.frame import Frame
from service.sessions import Sessions
from tests.adapters.graphs import accumulator, save
from tests.engines import CountingStore, ended, key, one
from tests.proxy import Proxy
from tests.servers import RedisServer
from tests.test_engine_frames import KEYS, codes, create, submitted


class Near(MemoryStore):
    """What is in another store, past all that holds that up."""

    def __init__(self, store: MemoryStore) -> None:
        vars(self).update(vars(store))


async def until_sent(store: CountingStore, commits: int) -> None:
    for _ in range(1000):
        if len(store.commits) >= commits:
            return
        await asyncio.sleep(0)
    raise AssertionError(f"the store has {store.commits}")


async def two_in_flight(engine: Engine, store: CountingStore) -> tuple[Frame, Frame]:
    """Send two frames of all sessions, which are at step 1; return when the store has both, and no more than that."""
    store.gate.clear()
    store.commits.clear()
    first, second = (submitted(engine, KEYS, shift=shift) for shift in (0.25, 0.5))
    await until_sent(store, 2)
    assert store.commits == [8, 8]
    assert not first.ended.done()
    return first, second


@pytest.fixture
async def opened(engine: Engine, sessions: Sessions) -> Engine:
    """An engine that remembers all sessions, which are at step 1."""
    await create(sessions)
    await ended(submitted(engine, KEYS))
    return engine


async def test_the_next_frame_goes_on_where_the_last_one_is_about_to_be(
    opened: Engine, sessions: Sessions, store: CountingStore
) -> None:
    frames = await two_in_flight(opened, store)
    third = submitted(opened, KEYS, [4] * 8, shift=0.75)
    await asyncio.sleep(0.01)
    assert store.commits == [8, 8], "one at a time goes ahead of what is acknowledged"
    store.gate.set()
    told = [await ended(frame) for frame in (*frames, third)]
    assert [codes(each) for each in told] == [[2] * 8, [3] * 8, [4] * 8]
    apart = [key(f"apart-{i}") for i in range(8)]
    await create(sessions, apart)
    for t, shift in enumerate((0.0, 0.25, 0.5, 0.75)):
        alone = await asyncio.gather(*(opened.step(each, one(shift=i + shift)) for i, each in enumerate(apart)))
        for ours, theirs in zip(told[t - 1] if t else [], alone, strict=bool(t)):
            assert isinstance(ours, Result)
            np.testing.assert_array_equal(ours.outputs["hot_spot"], theirs.outputs["hot_spot"])
    for one_of, other in zip(KEYS, apart, strict=True):
        assert (await sessions.get(one_of)).state == (await sessions.get(other)).state


async def test_what_the_first_lost_to_another_writer_comes_before_the_second(
    opened: Engine, sessions: Sessions, store: CountingStore, models: ModelRepository
) -> None:
    elsewhere = Engine(Near(store), models, PrometheusObserver())
    first, second = await two_in_flight(opened, store)
    await elsewhere.step(KEYS[3], one(shift=9.0))
    store.gate.set()
    then = submitted(opened, KEYS, shift=0.75)
    assert codes(await ended(first)) == [2, 2, 2, 3, 2, 2, 2, 2]
    assert codes(await ended(second)) == [3, 3, 3, 4, 3, 3, 3, 3]
    assert codes(await ended(then)) == [4, 4, 4, 5, 4, 4, 4, 4]
    await sessions.create(key("apart"), "hotspot")
    for shift in (3.0, 9.0, 3.25, 3.5, 3.75):
        await opened.step(key("apart"), one(shift=shift))
    assert (await sessions.get(KEYS[3])).state == (await sessions.get(key("apart"))).state
    await elsewhere.close()


@pytest.mark.parametrize("passes", range(12))
async def test_however_early_it_is_known_what_the_first_lost(
    opened: Engine, store: CountingStore, models: ModelRepository, passes: int
) -> None:
    elsewhere = Engine(Near(store), models, PrometheusObserver())
    await elsewhere.step(KEYS[3], one(2))
    store.gate.clear()
    frames = [submitted(opened, KEYS) for _ in range(3)]
    await store.arrived.wait()
    for _ in range(passes):
        await asyncio.sleep(0)
    store.gate.set()
    told = [codes(await ended(frame)) for frame in frames]
    assert [each[3] for each in told] == [3, 4, 5]
    assert [each[4] for each in told] == [2, 3, 4]
    await elsewhere.close()


class Halves(CountingStore):
    """Tells what became of a frame's second half when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.second = asyncio.Event()
        self.second.set()

    async def commit(self, commits: Sequence[Commit]) -> list[Lost | ConveyorError | None]:
        verdicts = await super().commit(commits)
        if commits[-1].key == KEYS[-1]:
            await self.second.wait()
        return verdicts


@pytest.mark.parametrize("passes", range(12))
async def test_however_early_it_is_known_what_a_part_of_the_first_lost(
    models: ModelRepository, monkeypatch: pytest.MonkeyPatch, passes: int
) -> None:
    monkeypatch.setattr("service.pipeline._PART", 4)
    store = Halves()
    engine, elsewhere = (Engine(each, models, PrometheusObserver(), max_batch=8) for each in (store, Near(store)))
    await create(Sessions(store, models, engine, default_ttl_s=60, max_ttl_s=600, max_history=100))
    await ended(submitted(engine, KEYS))
    await elsewhere.step(KEYS[3], one(2))
    store.gate.clear()
    store.second.clear()
    store.commits.clear()
    frames = [submitted(engine, KEYS) for _ in range(3)]
    await until_sent(store, 1)
    for _ in range(passes):
        await asyncio.sleep(0)
    store.gate.set()
    await asyncio.sleep(0.01)
    store.second.set()
    told = [codes(await ended(frame)) for frame in frames]
    assert [each[3] for each in told] == [3, 4, 5]
    assert [each[4] for each in told] == [2, 3, 4]
    await engine.close()
    await elsewhere.close()


async def test_what_is_read_comes_behind_what_the_first_lost(
    opened: Engine, store: CountingStore, models: ModelRepository
) -> None:
    elsewhere = Engine(Near(store), models, PrometheusObserver())
    await elsewhere.step(KEYS[3], one(2))
    store.gate.clear()
    store.commits.clear()
    first = submitted(opened, KEYS)
    await until_sent(store, 1)
    await asyncio.sleep(0.01)
    opened.forget(KEYS[3])
    second = submitted(opened, KEYS)
    await until_sent(store, 2)
    store.gate.set()
    assert [codes(await ended(frame))[3] for frame in (first, second)] == [3, 4]
    await elsewhere.close()


class Full(CountingStore):
    """Has no room for one session, the next time that it is written."""

    victim: SessionKey | None = None

    async def commit(self, commits: Sequence[Commit]) -> list[Lost | ConveyorError | None]:
        keys = [commit.key for commit in commits]
        if self.victim not in keys:
            return await super().commit(commits)
        at, self.victim = keys.index(self.victim), None
        verdicts = await super().commit([*commits[:at], *commits[at + 1 :]])
        return [*verdicts[:at], StoreFull("no room"), *verdicts[at:]]


async def test_what_the_first_was_refused_the_second_does_not_build_upon(models: ModelRepository) -> None:
    store = Full()
    engine = Engine(store, models, PrometheusObserver(), max_batch=8)
    await create(Sessions(store, models, engine, default_ttl_s=60, max_ttl_s=600, max_history=100))
    await ended(submitted(engine, KEYS))
    store.victim = KEYS[5]
    store.gate.clear()
    first, second = (submitted(engine, KEYS) for _ in range(2))
    await until_sent(store, 3)
    store.gate.set()
    assert codes(await ended(first)) == [2, 2, 2, 2, 2, "store_full", 2, 2]
    assert codes(await ended(second)) == [3, 3, 3, 3, 3, 2, 3, 3]
    await engine.close()


async def test_what_has_to_be_read_waits_for_the_first_to_be_written(opened: Engine, store: CountingStore) -> None:
    store.gate.clear()
    store.commits.clear()
    store.loads.clear()
    first = submitted(opened, KEYS)
    await until_sent(store, 1)
    await asyncio.sleep(0.01)
    for each in KEYS[2:4]:
        opened.forget(each)
    second = submitted(opened, KEYS)
    await until_sent(store, 2)
    await asyncio.sleep(0.01)
    assert (store.commits, store.loads) == ([8, 6], [])
    store.gate.set()
    assert codes(await ended(first)) == [2] * 8
    assert codes(await ended(second)) == [3] * 8
    assert (store.commits, store.loads) == ([8, 6, 2], [2])


async def test_what_ends_before_the_first_waits_for_it(opened: Engine, store: CountingStore) -> None:
    """The second asks for steps that cannot come next: there is nothing to write, and all to be read."""
    store.gate.clear()
    store.commits.clear()
    first = submitted(opened, KEYS)
    await until_sent(store, 1)
    second = submitted(opened, KEYS, [9] * 8)
    third = submitted(opened, KEYS, [3] * 8)
    await asyncio.sleep(0.01)
    assert not second.ended.done()
    store.gate.set()
    assert codes(await ended(first)) == [2] * 8
    assert codes(await ended(second)) == ["step_gap"] * 8
    assert codes(await ended(third)) == [3] * 8


async def test_what_the_model_made_no_number_of_is_settled_first(tmp_path: Path, store: CountingStore) -> None:
    save(accumulator(gain=1e30), tmp_path, "sum")
    models = ModelRepository.load(tmp_path, max_batch=8)
    engine = Engine(store, models, PrometheusObserver(), max_batch=8)
    await create(Sessions(store, models, engine, default_ttl_s=60, max_ttl_s=600, max_history=100), model="sum")

    def sent(fifth: float) -> Frame:
        x = np.ones((8, 2))
        x[5] = fifth
        frame = engine.submit_frame(KEYS, x, np.zeros(8, np.uint64))
        assert frame is not None
        return frame

    await ended(sent(1.0))
    frames = [sent(fifth) for fifth in (1e18, 1.0, 1e18, 1.0)]
    told = [codes(await ended(frame)) for frame in frames]
    assert [[each[0], each[5]] for each in told] == [[2, "non_finite_output"], [3, 2], [4, "non_finite_output"], [5, 3]]
    await engine.close()


async def test_the_end_of_the_service_ends_both(opened: Engine, store: CountingStore) -> None:
    first, second = await two_in_flight(opened, store)
    third = submitted(opened, KEYS)
    await opened.close(timeout_s=0.05)
    assert codes(await ended(first)) == ["outcome_unknown"] * 8
    assert codes(await ended(second)) == ["outcome_unknown"] * 8
    assert codes(await ended(third)) == ["shutting_down"] * 8


async def test_where_the_first_has_lost_all_there_may_be_nothing_left_to_read(
    opened: Engine, store: CountingStore, models: ModelRepository
) -> None:
    elsewhere = Engine(Near(store), models, PrometheusObserver())
    store.gate.clear()
    store.commits.clear()
    store.loads.clear()
    first = submitted(opened, KEYS)
    await until_sent(store, 1)
    for each in KEYS:
        await elsewhere.step(each, one(2))
    await asyncio.sleep(0.01)
    opened.forget(KEYS[3])
    second = submitted(opened, KEYS)
    await until_sent(store, 2)
    store.gate.set()
    assert codes(await ended(first)) == [3] * 8
    assert codes(await ended(second)) == [4] * 8
    assert 0 not in store.loads
    await elsewhere.close()


@pytest.mark.parametrize("rival", [False, True])
async def test_where_the_replies_to_both_are_lost_each_is_known_to_be_written(
    redis: RedisServer, models: ModelRepository, rival: bool
) -> None:
    """Sent again, the first finds the second's record in its place; that of somebody else would tell nothing."""
    async with Proxy(redis.url) as proxy:
        store = RedisStore(proxy.url)
        engine = Engine(store, models, PrometheusObserver(), max_batch=8)
        sessions = Sessions(store, models, engine, default_ttl_s=60, max_ttl_s=600, max_history=100)
        await create(sessions)
        await ended(submitted(engine, KEYS))
        await ended(submitted(engine, KEYS))
        writes = iter(["pass", "lose the reply"])
        proxy.fate = lambda request: next(writes, "pass") if b"EVALSHA" in request else "pass"
        pieces = chain([0.0, 0.5], repeat(0.0))  # the reply to the first is on its way for long
        proxy.delay = lambda: next(pieces)
        near = RedisStore(redis.url)
        elsewhere = Engine(near, models, PrometheusObserver())
        if rival:
            proxy.meanwhile = lambda: elsewhere.step(KEYS[0], one())
        frames = [submitted(engine, KEYS) for _ in range(2)]
        told = [codes(await ended(frame)) for frame in frames]
        assert [each[1:] for each in told] == [[3] * 7, [4] * 7]
        assert [each[0] for each in told] == (["outcome_unknown"] * 2 if rival else [3, 4])
        assert proxy.broken == 1
        assert [(await sessions.get(each)).step for each in KEYS] == [4 + rival, *[4] * 7]
        for each in KEYS:
            await sessions.delete(each)
        await asyncio.gather(engine.close(), elsewhere.close())
        await asyncio.gather(store.close(), near.close())
