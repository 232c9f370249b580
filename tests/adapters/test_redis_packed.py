"""What stands in Redis is packed, takes less of its memory, and is a plain record again to everyone who asks."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
import redis as redis_client

from service.adapters.metrics import PrometheusObserver
from service.adapters.model_repository import ModelRepository
from service.adapters.redis_records import redis_key
from service.adapters.redis_store import RedisStore
from service.core import record
from service.core.errors import InvalidRecord
from service.core.packed import pack
from service.core.ports import Commit, Lost
from service.core.session import ModelRef, Result, Session, SessionKey
from service.engine import Engine
from tests.engines import key, one
from tests.servers import RedisServer


@pytest.fixture
def direct(server: RedisServer) -> Iterator["redis_client.Redis[bytes]"]:
    with redis_client.Redis.from_url(server.admin_url) as client:
        yield client


@pytest.fixture
async def store(server: RedisServer) -> AsyncIterator[RedisStore]:
    store = RedisStore(server.url)
    yield store
    await store.close()


@pytest.fixture
async def engine(store: RedisStore, models: ModelRepository) -> AsyncIterator[Engine]:
    engine = Engine(store, models, PrometheusObserver(), max_batch=8, cache_bytes=1)
    yield engine
    await engine.close()


def session(models: ModelRepository, step: int = 0, epoch: int = 9) -> bytes:
    """The record of a session of the demo model that has seen something, or nothing yet."""
    model = models.find("hotspot")
    draw = np.random.default_rng(step)
    state = draw.uniform(-1, 1, model.spec.state_size) * bool(step)
    outputs = draw.normal(80, 9, model.spec.output_size if step else 0)
    parts = (part.astype(np.float32).tobytes() for part in (state, outputs))
    return record.encode(Session(model.ref, epoch, step, 1, 1000, 60, *parts))


def odd(models: ModelRepository, step: int) -> bytes:
    """One with a number too small to be packed beside the others."""
    read = record.decode(session(models, step))
    return record.encode(read._replace(state=b"\1\0\0\0" + read.state[4:]))


def format_of(direct: "redis_client.Redis[bytes]", of: SessionKey) -> int:
    value = direct.get(redis_key(of))
    assert value is not None
    return value[record.FORMAT_AT]


async def test_a_packed_session_takes_less_of_redis_memory(
    store: RedisStore, direct: "redis_client.Redis[bytes]", models: ModelRepository
) -> None:
    whole = session(models, 5)
    await store.create(key("packed"), whole)
    direct.set(redis_key(key("plain!")), whole, ex=60)
    packed, plain = (direct.memory_usage(redis_key(key(name)), samples=0) for name in ("packed", "plain!"))
    assert packed is not None
    assert plain is not None
    assert packed <= plain - 64, "a size class less; with the C library's allocator nearly what the value is shorter by"
    assert await store.load([key("packed"), key("plain!")]) == [whole, whole], "both formats are read"


async def test_every_way_into_the_store_packs_and_every_way_out_unpacks(
    store: RedisStore, direct: "redis_client.Redis[bytes]", models: ModelRepository
) -> None:
    first, then, late = session(models, 1), session(models, 2), session(models, 3)
    assert await store.create(key(), first) is None
    assert format_of(direct, key()) == record.PACKED
    assert await store.create(key(), session(models, 3, epoch=8)) == first
    assert await store.commit([Commit(key(), first[record.VERSION_SLICE], then)]) == [None]
    assert format_of(direct, key()) == record.PACKED
    assert await store.commit([Commit(key(), first[record.VERSION_SLICE], late)]) == [Lost(then)]
    assert await store.load([key()]) == [then]
    listed = await store.scan("t", None, None, 10)
    assert listed.sessions == [("pump", record.decode(then))]


async def test_plain_and_packed_ones_travel_together(
    store: RedisStore, direct: "redis_client.Redis[bytes]", models: ModelRepository
) -> None:
    keys = [key(i) for i in range(9)]
    kinds = [
        session(models, 1),
        odd(models, 1),
        record.encode(Session(ModelRef("m", "1", bytes(8)), *range(5), b"", b"")),
    ]
    old = [kinds[i % 3] for i in range(9)]
    for each, whole in zip(keys, old, strict=True):
        await store.create(each, whole)
    assert [format_of(direct, each) for each in keys[:3]] == [record.PACKED, record.FORMAT, record.FORMAT]
    assert await store.load([*keys, key("nobody")]) == [*old, None]
    stale = [
        Commit(each, session(models, 7, epoch=7)[record.VERSION_SLICE], session(models, 8, epoch=7)) for each in keys
    ]
    assert await store.commit(stale) == [Lost(whole) for whole in old]
    new = [kinds[(i + 1) % 2] for i in range(9)]
    commits = [Commit(*each) for each in zip(keys, [w[record.VERSION_SLICE] for w in old], new, strict=True)]
    assert await store.commit(commits) == [None] * 9
    assert await store.load(keys) == new


@pytest.mark.parametrize("damage", ["cut", "grown", "lengths"])
async def test_a_damaged_session_is_refused_and_its_neighbours_step_on(
    store: RedisStore, direct: "redis_client.Redis[bytes]", engine: Engine, models: ModelRepository, damage: str
) -> None:
    names = ["left", "damaged", "right"]
    for name in names:
        await store.create(key(name), session(models, 4))
    (value,) = pack([session(models, 4)])
    spoiled = {"cut": value[:-7], "grown": value + b"\0", "lengths": value[:50] + b"\xff" * 8 + value[58:]}[damage]
    direct.set(redis_key(key("damaged")), spoiled)
    ended = await asyncio.gather(*(engine.submit(key(name), one(5)) for name in names), return_exceptions=True)
    assert isinstance(ended[1], InvalidRecord)
    assert "damaged" in ended[1].detail
    assert all(isinstance(result, Result) and result.step == 5 for result in (ended[0], ended[2]))
    assert await store.load([key("damaged")]) == [spoiled], "it is handed out as it is"
    listed = await store.scan("t", None, None, 10)
    assert sorted(id_ for id_, _ in listed.sessions) == ["left", "right"]


async def test_what_a_model_leaves_step_by_step_comes_back(
    store: RedisStore, direct: "redis_client.Redis[bytes]", engine: Engine, models: ModelRepository
) -> None:
    """Read from Redis at each step, two sessions get what one gets that is remembered."""
    remembering = Engine(store, models, PrometheusObserver(), max_batch=8)
    names = ["one", "two", "remembered"]
    for name in names:
        await store.create(key(name), session(models))
    for step in range(1, 31):
        results = await asyncio.gather(
            *(
                (remembering if name == "remembered" else engine).step(key(name), one(step, shift=step / 9))
                for name in names
            )
        )
        for result in results[:2]:
            np.testing.assert_array_equal(result.outputs["hot_spot"], results[2].outputs["hot_spot"])
        assert all(format_of(direct, key(name)) == record.PACKED for name in names)
    await remembering.close()
