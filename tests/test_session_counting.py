"""What a quota of sessions counts: who is still there, who was never made, who cannot be asked after."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress

import pytest

from service.adapters.memory_places import MemoryPlaces
from service.adapters.memory_store import MemoryStore
from service.adapters.model_repository import ModelRepository
from service.adapters.redis_open import open_redis
from service.beside import beside
from service.core.errors import (
    ConveyorError,
    QuotaExceeded,
    SessionExists,
    SessionNotFound,
    StoreUnavailable,
)
from service.core.quota import BEING_MADE_S, LOOK_AT_ONCE, LOOK_WITHIN_S
from service.core.session import SessionKey
from service.engine import Engine
from service.quotas import Quota
from service.sessions import Sessions
from tests.clock import Time
from tests.engines import CountingStore, key, one, opened
from tests.servers import RedisServer, redis_command


async def test_one_that_expired_makes_room_and_one_that_went_on_does_not(
    limited: Sessions, store: CountingStore, engine: Engine, time: Time
) -> None:
    await opened(limited, "a", "b", "c", ttl_s=100)
    store._records.pop(key("b"))  # as Redis does it: nobody is told
    await engine.submit(key("a"), one())
    with pytest.raises(QuotaExceeded):
        await opened(limited, "d")
    time.now += 101
    await opened(limited, "d")
    with pytest.raises(QuotaExceeded):
        await opened(limited, "e")


async def test_a_place_that_was_taken_for_nothing_is_found_free(
    limited: Sessions, store: CountingStore, time: Time, places: MemoryPlaces
) -> None:
    """A process that ends between the count and the creation."""
    await opened(limited, "a", "b")
    assert await places.take(key("never-made"), 3) is None
    with pytest.raises(QuotaExceeded):
        await opened(limited, "c")
    time.now += BEING_MADE_S
    await opened(limited, "c")


class SlowStore(CountingStore):
    """Takes its time to read, so that who reads at once is seen to."""

    async def load(self, keys: Sequence[SessionKey]) -> list[bytes | None]:
        await asyncio.sleep(0.01)
        return await super().load(keys)


async def test_the_sessions_that_are_there_are_read_once_in_an_hour(
    models: ModelRepository, engine: Engine, places: MemoryPlaces, time: Time
) -> None:
    store = SlowStore()
    many = 2 * LOOK_AT_ONCE + 1
    quota = Quota(many, places, store)
    limited = Sessions(store, models, engine, default_ttl_s=86_400, max_ttl_s=86_400, max_history=1, quota=quota)
    await opened(limited, *(f"s{i}" for i in range(many)))
    store.loads.clear()
    time.now += LOOK_WITHIN_S
    attempts = [limited.create(key(f"more{i}"), "hotspot") for i in range(20)]
    for outcome in await asyncio.gather(*attempts, return_exceptions=True):
        assert isinstance(outcome, QuotaExceeded)
    looked = [count for count in store.loads if count > 1]
    assert looked == [LOOK_AT_ONCE, LOOK_AT_ONCE]
    assert sum(store.loads) == many + 20, "each of the twenty was looked for by its name besides"


class HalfAway(MemoryStore):
    """A store of several servers, one of which cannot be reached."""

    async def load(self, keys: Sequence[SessionKey]) -> list[bytes | ConveyorError | None]:  # type: ignore[override]
        return [StoreUnavailable("away") if "away" in key.session_id else None for key in keys]


async def test_what_cannot_be_looked_at_counts(places: MemoryPlaces, time: Time) -> None:
    quota = Quota(2, places, HalfAway())
    for name in ("away", "gone"):
        await quota.admit(key(name))
        await quota.made(key(name), 1)
    time.now += 2
    await quota.admit(key("new"))
    with pytest.raises(QuotaExceeded):
        await quota.admit(key("newer"))


async def test_bytes_that_are_no_session_count_too(
    limited: Sessions, store: CountingStore, places: MemoryPlaces, time: Time
) -> None:
    await opened(limited, "a", "b", "c", ttl_s=1)
    for name in "abc":
        store._records[key(name)] = (b"not a record", float("inf"))
    time.now += 2
    with pytest.raises(QuotaExceeded):
        await opened(limited, "d")


class Unsure(MemoryPlaces):
    """Takes places, and cannot be reached afterwards."""

    async def keep(self, key: SessionKey, look_in_s: int) -> None:
        raise StoreUnavailable("away")

    async def release(self, key: SessionKey) -> None:
        raise StoreUnavailable("away")


async def test_what_was_done_does_not_fail_for_not_being_counted(
    models: ModelRepository, engine: Engine, store: CountingStore, time: Time
) -> None:
    quota = Quota(1, Unsure(time), store)
    limited = Sessions(store, models, engine, default_ttl_s=60, max_ttl_s=60, max_history=1, quota=quota)
    await opened(limited, "a")
    await limited.delete(key("a"))
    with pytest.raises(QuotaExceeded):
        await opened(limited, "b")
    time.now += BEING_MADE_S
    await opened(limited, "b")


async def test_a_limit_that_was_lowered_lets_nobody_in_until_there_is_room(places: MemoryPlaces) -> None:
    store = CountingStore()
    for name in "abc":
        await Quota(3, places, store).admit(key(name))
        await Quota(3, places, store).made(key(name), 600)
    lower = Quota(2, places, store)
    with pytest.raises(QuotaExceeded):
        await lower.admit(key("d"))
    for name in "ab":
        await lower.deleted(key(name))
    await lower.admit(key("d"))


async def test_however_openings_and_deletions_come_in_between_each_other_all_are_counted(
    redis: RedisServer, models: ModelRepository, engine: Engine
) -> None:
    """Two processes, few names, a limit that is always reached."""
    limit, names, tenant = 3, "abcdef", "churning"
    stores = [open_redis(redis.url, timeout_s=5, description=None, durability="none") for _ in range(2)]
    both = [
        Sessions(store, models, engine, default_ttl_s=60, max_ttl_s=60, max_history=1, quota=quota)
        for store in stores
        for quota in [Quota(limit, beside(store).places, store)]
    ]
    draw = random.Random(7)

    async def churn() -> None:
        for _ in range(40):
            sessions, name = draw.choice(both), SessionKey(tenant, draw.choice(names))
            with suppress(QuotaExceeded, SessionExists, SessionNotFound):
                await (sessions.delete(name) if draw.random() < 0.5 else sessions.create(name, "hotspot"))

    for _ in range(10):
        await asyncio.gather(*(churn() for _ in range(8)))
        there = {session_id for session_id, _ in (await both[0].list(tenant, None, None, 100)).sessions}
        counted = set(redis_command(redis.url, "ZRANGE", f"conveyor:quota:{{0}}:{tenant}", "0", "-1"))
        assert there <= counted
        assert len(counted) <= limit
    for name in names:
        with suppress(SessionNotFound):
            await both[0].delete(SessionKey(tenant, name))
    for name in names[:limit]:
        await both[1].create(SessionKey(tenant, name), "hotspot")
    for store in stores:
        await store.close()
