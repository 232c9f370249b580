"""Which server Sentinel leads to, and when a connection is given up for another."""

import asyncio
from collections.abc import Iterator

import pytest

from service.adapters.redis_address import Address, read_url
from service.adapters.redis_link import RedisLink
from service.adapters.redis_store import RedisStore
from service.core.errors import StoreUnavailable
from service.core.ports import Commit
from service.core.record import VERSION_SLICE
from service.core.session import SessionKey
from tests.contracts.test_store import session
from tests.redis_deployments import SentinelDeployment, fields, replicated, sentinel_deployment
from tests.servers import RedisServer, redis_command

KEY = SessionKey("sentinel", "pump")


@pytest.fixture(scope="module")
def deployment() -> Iterator[SentinelDeployment]:
    with sentinel_deployment() as deployment:
        yield deployment


async def port_of(link: RedisLink) -> int:
    info = (await link.call("INFO", "server")).value.decode()
    return int(fields(info)["tcp_port"])


async def test_it_leads_to_the_master_and_its_database(deployment: SentinelDeployment) -> None:
    redis_command(deployment.master.url, "ACL", "SETUSER", "default", "+select")
    link = RedisLink(f"{deployment.url}/3", timeout_s=5.0)
    assert await port_of(link) == deployment.master.port
    await link.call("SET", "conveyor:somewhere", "x")
    assert redis_command(deployment.master.url.replace("/0", "/3"), "GET", "conveyor:somewhere") == "x"
    await link.close()


async def test_sentinels_that_are_away_are_passed_over(deployment: SentinelDeployment) -> None:
    there = deployment.sentinels[2].port
    link = RedisLink(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{there}/sessions", timeout_s=5.0)
    assert await port_of(link) == deployment.master.port
    await link.close()


async def test_sentinels_that_ask_for_a_password_get_theirs(deployment: SentinelDeployment) -> None:
    sentinel = deployment.sentinels[2]
    redis_command(sentinel.url, "ACL", "SETUSER", "default", "resetpass", ">se&cret")
    address = f"redis+sentinel://127.0.0.1:{sentinel.port}/sessions"
    store = RedisStore(f"{address}?sentinel_password=se%26cret", timeout_s=5.0)
    assert (await store.health()).description.startswith(f"Redis at {address}, version")
    await store.close()
    refused = RedisStore(address, timeout_s=5.0)
    with pytest.raises(StoreUnavailable, match=r"No master found|credentials"):
        await refused.health()
    await refused.close()
    password = f"redis://:se%26cret@127.0.0.1:{sentinel.port}"
    redis_command(password, "ACL", "SETUSER", "default", "nopass")


@pytest.mark.parametrize("url", ["redis+sentinel://127.0.0.1:1/sessions", "{}/strangers"])
async def test_where_no_master_is_named_nothing_is_sent(deployment: SentinelDeployment, url: str) -> None:
    link = RedisLink(url.format(deployment.url.removesuffix("/sessions")), timeout_s=2.0)
    with pytest.raises(StoreUnavailable, match="No master found"):
        await link.call("PING")
    await link.close()


async def test_a_master_that_says_that_it_is_none_is_not_used(deployment: SentinelDeployment) -> None:
    master, replica = deployment.master, deployment.replica
    for sentinel in deployment.sentinels:  # they would set it right
        sentinel.terminate()
        sentinel.wait()
    redis_command(master.url, "REPLICAOF", "127.0.0.1", str(replica.port))
    deployment.sentinels[0].start()
    link = RedisLink(deployment.url, timeout_s=5.0)
    try:
        with pytest.raises(StoreUnavailable, match="says that it is a slave"):
            await link.call("PING")
    finally:
        await link.close()


async def test_a_server_that_became_a_replica_is_left_and_nothing_was_written() -> None:
    with replicated() as (master, other):
        store = RedisStore(master.url, timeout_s=5.0)
        assert await store.create(KEY, session(0)) is None
        assert redis_command(master.url, "WAIT", 1, 5000) == 1  # or the session might be gone with the next command
        redis_command(master.url, "REPLICAOF", "127.0.0.1", str(other.port))
        before = connections(master)
        (verdict,) = await store.commit([Commit(KEY, session(0)[VERSION_SLICE], session(1))])
        assert isinstance(verdict, StoreUnavailable)
        assert "READONLY" in verdict.detail
        with pytest.raises(StoreUnavailable, match="READONLY"):
            await store.delete(KEY)
        redis_command(master.url, "REPLICAOF", "NO", "ONE")
        assert await store.load([KEY]) == [session(0)]
        assert connections(master) > before, "over another connection"
        await store.close()


def connections(server: RedisServer) -> int:
    return int(redis_command(server.url, "INFO", "stats")["total_connections_received"])


async def test_what_is_in_flight_on_a_connection_that_is_left_is_answered() -> None:
    with RedisServer(restricted=False) as server:  # the link is tried with commands that the service never sends
        link = RedisLink(server.url, timeout_s=2.0)
        await link.call("PING")
        waiting = asyncio.create_task(link.call_once("BLPOP", "nothing", 0.3))
        await asyncio.sleep(0.05)
        link.leave()
        assert (await link.call("ECHO", "next")).value == b"next"
        assert await waiting is None
        await link.close()


def test_a_url_of_several_servers_is_taken_apart() -> None:
    found = read_url("redis+cluster://ann:p%40ss@[::1]:7000,example.org?ssl_ca_certs=/ca.pem", 6379)
    assert found.addresses == [Address("::1", 7000), Address("example.org", 6379)]
    assert found.url_of(found.addresses[0]) == "redis://ann:p%40ss@[::1]:7000/?ssl_ca_certs=/ca.pem"
