"""What `CONVEYOR_DURABILITY` promises: a step is answered when it is as safe as was asked for, and not before."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.adapters.redis_cluster_store import RedisClusterStore
from service.adapters.redis_durability import knows_waitaof
from service.adapters.redis_link import NotConfirmed
from service.adapters.redis_store import RedisStore
from service.core.errors import ConveyorError, OutcomeUnknown, StoreUnavailable
from service.core.ports import Commit
from service.core.record import VERSION_SLICE
from service.core.session import SessionKey
from tests.chaos.checker import Terms
from tests.chaos.siege import besiege
from tests.contracts.test_store import session
from tests.redis_clusters import cluster_deployment
from tests.redis_deployments import is_level, replicated
from tests.servers import ConveyorServer, RedisServer, ServerFailed, redis_binaries, redis_command, wait_until
from tests.streaming_client import open_session, reading

KEY = SessionKey("durability", "pump")
STEPS = "/v1/sessions/pump/steps"


@pytest.fixture(params=redis_binaries(), ids=lambda found: found[0])
def binary(request: pytest.FixtureRequest) -> Path:
    return Path(request.param[1])


@pytest.fixture
def pair(binary: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    with replicated(binary=binary) as pair:
        yield pair


def step(old: bytes, new: bytes) -> Commit:
    return Commit(KEY, old[VERSION_SLICE], new)


async def test_a_write_that_no_replica_has_is_not_called_made(pair: tuple[RedisServer, RedisServer]) -> None:
    master, replica = pair
    store = RedisStore(master.url, timeout_s=1.0, durability="replica")
    plain = RedisStore(master.url)
    assert await store.create(KEY, session(0)) is None
    assert await store.commit([step(session(0), session(1))]) == [None]
    replica.signal(signal.SIGSTOP)
    (verdict,) = await store.commit([step(session(1), session(2, nonce=2))])
    assert isinstance(verdict, OutcomeUnknown)
    assert "did not confirm" in verdict.detail
    assert await plain.load([KEY]) == [session(2, nonce=2)], "it is written, though not as safely as it has to be"
    replica.signal(signal.SIGCONT)
    assert await store.load([KEY]) == [session(2, nonce=2)], "and is confirmed to whoever asks later"
    await store.close()
    await plain.close()


async def test_what_another_connection_wrote_is_confirmed_too(pair: tuple[RedisServer, RedisServer]) -> None:
    """Redis waits for the last write of the connection that asks, and one that only reads has none."""
    master, replica = pair
    plain = RedisStore(master.url)
    assert await plain.create(KEY, session(0)) is None
    assert wait_until(lambda: is_level(master), 20)
    replica.signal(signal.SIGSTOP)
    assert await plain.commit([step(session(0), session(1, nonce=2))]) == [None]
    fresh = RedisStore(master.url, timeout_s=1.0, durability="replica")
    with pytest.raises(StoreUnavailable, match="did not confirm"):
        await fresh.load([KEY])
    (verdict,) = await fresh.commit([step(session(0), session(1, nonce=2))])
    assert isinstance(verdict, OutcomeUnknown), "its own write, sent again: there already, and not on the replica"
    with pytest.raises(OutcomeUnknown):
        await fresh.create(KEY, session(1, nonce=2))
    with pytest.raises(OutcomeUnknown):
        await fresh.delete(KEY)
    replica.signal(signal.SIGCONT)
    await plain.close()
    await fresh.close()


async def test_what_was_refused_is_not_in_doubt(pair: tuple[RedisServer, RedisServer]) -> None:
    master, replica = pair
    store = RedisStore(master.url, timeout_s=1.0, durability="replica")
    assert await store.create(KEY, session(5)) is None
    replica.signal(signal.SIGSTOP)
    (verdict,) = await store.commit([step(session(0), session(1))])
    assert verdict is not None
    assert not isinstance(verdict, ConveyorError), "lost to another writer, whatever the replica has"
    replica.signal(signal.SIGCONT)
    await store.close()


def test_a_step_that_was_not_confirmed_is_answered_when_it_is_sent_again() -> None:
    with replicated() as (master, replica):
        settings = {"redis_url": master.url, "durability": "replica", "store_timeout_s": 1}
        with ConveyorServer(**settings) as service, httpx.Client(base_url=service.url, timeout=20) as http:
            assert "durability replica (WAIT)" in http.get("/readyz").json()["store"]
            asyncio.run(open_session(service.url, "pump"))
            assert http.post(STEPS, json={"x": reading(0, 1), "step": 1}).status_code == 200
            replica.signal(signal.SIGSTOP)
            refused = http.post(STEPS, json={"x": reading(0, 2), "step": 2})
            assert (refused.status_code, refused.json()["code"]) == (503, "outcome_unknown")
            again = http.post(STEPS, json={"x": reading(0, 2), "step": 2})
            assert (again.status_code, again.json()["code"]) == (503, "store_unavailable"), "nor is it replayed"
            replica.signal(signal.SIGCONT)
            assert wait_until(lambda: is_level(master), 20)
            answer = http.post(STEPS, json={"x": reading(0, 2), "step": 2}).json()
            assert (answer["step"], answer["replayed"]) == (2, True)
            replica.kill()
            assert wait_until(lambda: http.get("/readyz").status_code == 503, 20)
            assert "has no replica" in http.get("/readyz").json()["store"]


async def test_with_durability_aof_a_killed_redis_has_lost_nothing() -> None:
    with RedisServer(appendonly="yes", appendfsync="always", restricted=False) as redis:  # asked with CONFIG GET

        async def harm() -> None:
            for _ in range(2):
                await asyncio.sleep(0.7)
                await asyncio.to_thread(redis.kill)
                await asyncio.to_thread(redis.start)

        with ConveyorServer(redis_url=redis.url, durability="aof") as service:
            report = await besiege(service.url, harm, Terms())
            async with httpx.AsyncClient(base_url=service.url) as http:
                assert "durability aof" in (await http.get("/readyz")).json()["store"]
    assert report.violations == []
    assert report.rewinds == 0


def refusal(**settings: object) -> str:
    """Why the service does not start."""
    service = ConveyorServer(**settings)
    try:
        with pytest.raises(ServerFailed, match="ended with status") as failed:
            service.start()
    finally:
        service.close()
    return " ".join(str(failed.value).split())


def version(redis: RedisServer) -> str:
    return str(redis_command(redis.url, "INFO", "server")["redis_version"])


def test_a_durability_that_cannot_be_had_ends_the_start() -> None:
    with RedisServer(appendonly="yes", appendfsync="everysec", restricted=False) as redis:  # asked with CONFIG GET
        assert "has no replica; connect one" in refusal(redis_url=redis.url, durability="replica")
        if not knows_waitaof({"redis_version": version(redis)}):
            why = refusal(redis_url=redis.url, durability="aof")
            assert "has no WAITAOF (7.2 has), and has appendfsync everysec; set appendfsync always" in why
    with RedisServer() as redis:
        assert "keeps no append-only file" in refusal(redis_url=redis.url, durability="aof")


def test_memory_is_not_durable() -> None:
    assert "memory:// keeps nothing" in refusal(redis_url="memory://", durability="aof")


async def test_each_node_of_a_cluster_confirms_its_own() -> None:
    with cluster_deployment() as cluster:
        store = RedisClusterStore(cluster.url, timeout_s=1.0, durability="replica")
        keys = [SessionKey("durability", str(i)) for i in range(60)]
        for key in keys:
            assert await store.create(key, session(0)) is None
        stopped = cluster.replica_of(cluster.masters()[0])
        stopped.signal(signal.SIGSTOP)
        verdicts = await store.commit([Commit(key, session(0)[VERSION_SLICE], session(1)) for key in keys])
        stopped.signal(signal.SIGCONT)
        assert {type(verdict) for verdict in verdicts} == {type(None), NotConfirmed}
        await store.close()


def test_the_private_redis_gives_durability_aof_by_itself() -> None:
    with ConveyorServer(durability="aof") as service:
        assert "durability aof" in httpx.get(f"{service.url}/readyz").json()["store"]
