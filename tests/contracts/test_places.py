"""What every `Places` promises: one suite for the process, for each Redis of this machine, and for a cluster."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from service.adapters.memory_store import MemoryStore
from service.adapters.redis_open import open_redis
from service.beside import beside
from service.core.ports import StateStore
from service.core.quota import LOOK_AT_ONCE, Look, Place, Places
from service.core.session import SessionKey
from tests.redis_clusters import cluster_deployment
from tests.servers import RedisServer, redis_binaries

REDISES = dict(redis_binaries())


@pytest.fixture(scope="module", params=["memory", "cluster", *REDISES])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "memory":
        yield "memory://"
    elif request.param == "cluster":
        with cluster_deployment(replicas=False) as deployment:
            yield deployment.url
    else:
        with RedisServer(REDISES[request.param], unix=True) as redis:
            yield redis.unix_url


@pytest.fixture
async def places(url: str) -> AsyncIterator[Places]:
    store: StateStore = (
        MemoryStore() if url == "memory://" else open_redis(url, timeout_s=5, description=None, durability="none")
    )
    yield beside(store).places
    await store.close()


@pytest.fixture
def tenant() -> str:
    return f"t{uuid.uuid4().hex}"


async def made(places: Places, tenant: str, *ids: str, look_in_s: int = 60) -> None:
    for session_id in ids:
        key = SessionKey(tenant, session_id)
        assert await places.take(key, 1000) is None
        await places.keep(key, look_in_s)


async def due(places: Places, tenant: str, limit: int) -> list[str]:
    """What is due where all places are taken."""
    found = await places.take(SessionKey(tenant, "asks-in-vain"), limit)
    assert found is not None, "there was room"
    return [place.session_id for place in found]


async def test_there_are_as_many_places_as_the_limit_says(places: Places, tenant: str) -> None:
    taken = await asyncio.gather(*(places.take(SessionKey(tenant, f"s{i}"), 3) for i in range(20)))
    assert [found for found in taken if found is not None] == [[]] * 17
    assert await places.take(SessionKey(f"{tenant}-other", "s"), 1) is None


async def test_who_has_a_place_takes_no_second_one(places: Places, tenant: str) -> None:
    for _ in range(3):
        assert await places.take(SessionKey(tenant, "a"), 2) is None
    assert await places.take(SessionKey(tenant, "b"), 2) is None
    assert await places.take(SessionKey(tenant, "a"), 2) is None
    assert await places.take(SessionKey(tenant, "c"), 2) == []


async def test_a_place_is_due_when_its_time_has_come_and_not_before(places: Places, tenant: str) -> None:
    await made(places, tenant, "long")
    await made(places, tenant, "short", look_in_s=1)
    assert await due(places, tenant, 2) == []
    await asyncio.sleep(2.1)
    assert await due(places, tenant, 2) == ["short"]
    assert await due(places, tenant, 2) == ["short"], "nobody has looked"


async def test_the_place_of_a_deleted_session_is_due_first(places: Places, tenant: str) -> None:
    await made(places, tenant, "a", look_in_s=0)
    await made(places, tenant, "b", "c")
    await places.release(SessionKey(tenant, "c"))
    await places.release(SessionKey(tenant, "never-there"))
    assert await due(places, tenant, 3) == ["c", "a"]


async def test_a_place_is_free_when_a_look_found_nothing(places: Places, tenant: str) -> None:
    await made(places, tenant, "gone", "there", look_in_s=0)
    found = await places.take(SessionKey(tenant, "one-more"), 2)
    assert found is not None
    await places.settle(tenant, [Look(place, None if place.session_id == "gone" else 60) for place in found])
    assert await places.take(SessionKey(tenant, "one-more"), 2) is None
    assert await due(places, tenant, 1) == [], "the other one is not due any more, and still counts"


async def test_a_session_that_is_being_made_keeps_its_place(places: Places, tenant: str) -> None:
    """It was deleted, somebody looked, and it is made again before that is told."""
    await made(places, tenant, "a")
    await places.release(SessionKey(tenant, "a"))
    found = await places.take(SessionKey(tenant, "b"), 1)
    assert found is not None
    assert await places.take(SessionKey(tenant, "a"), 1) is None
    await places.release(SessionKey(tenant, "a"))
    await places.settle(tenant, [Look(place, None) for place in found])
    assert await due(places, tenant, 1) == []


async def test_the_place_of_a_session_that_came_to_nothing_is_due_first(places: Places, tenant: str) -> None:
    await made(places, tenant, "a", look_in_s=0)
    assert await places.take(SessionKey(tenant, "failed"), 2) is None
    await places.give_up(SessionKey(tenant, "failed"))
    await places.give_up(SessionKey(tenant, "never-there"))
    assert await due(places, tenant, 2) == ["failed", "a"]


async def test_what_one_gives_up_another_may_still_be_making(places: Places, tenant: str) -> None:
    for _ in range(2):
        assert await places.take(SessionKey(tenant, "a"), 1) is None
    for _ in range(2):
        await places.give_up(SessionKey(tenant, "a"))
        assert await due(places, tenant, 1) == []
    await places.keep(SessionKey(tenant, "a"), 60)
    await places.give_up(SessionKey(tenant, "a"))
    assert await due(places, tenant, 1) == [], "it is there"
    assert await places.take(SessionKey(tenant, "a"), 1) is None
    await places.give_up(SessionKey(tenant, "a"))
    assert await due(places, tenant, 1) == ["a"], "to be looked at: the one that failed was not the one that is there"


async def test_what_was_looked_at_once_is_not_taken_for_something_later(places: Places, tenant: str) -> None:
    await made(places, tenant, "a", look_in_s=0)
    found = await places.take(SessionKey(tenant, "b"), 1)
    assert found is not None
    await made(places, tenant, "a")
    await places.settle(tenant, [Look(found[0], None), Look(Place("never-there", 0.0), 60)])
    assert await due(places, tenant, 1) == []


async def test_few_are_handed_out_at_once(places: Places, tenant: str) -> None:
    ids = [f"s{i:03}" for i in range(LOOK_AT_ONCE + 5)]
    await asyncio.gather(*(made(places, tenant, session_id, look_in_s=0) for session_id in ids))
    assert len(set(await due(places, tenant, len(ids)))) == LOOK_AT_ONCE
