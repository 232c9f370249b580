"""Sentinel promotes a replica: the service finds the new master, and clients replay what was lost."""

import asyncio
import signal
from collections.abc import Iterator

import httpx
import pytest

from service.adapters.redis_dial import LOOK_EVERY_S
from tests.chaos.checker import Terms
from tests.chaos.siege import besiege
from tests.faults.failover import replay, settled, undisturbed, until
from tests.redis_deployments import SERVICE, SentinelDeployment, cut_off, is_level, sentinel_deployment
from tests.servers import ConveyorServer, RedisServer, redis_command
from tests.streaming_client import open_session, reading

ROWS = [reading(4, step) for step in range(12)]


@pytest.fixture
def deployment() -> Iterator[SentinelDeployment]:
    with sentinel_deployment() as deployment:
        yield deployment


async def test_what_a_killed_master_had_alone_is_replayed(deployment: SentinelDeployment) -> None:
    master, replica = deployment.master, deployment.replica
    with ConveyorServer(redis_url=deployment.url, store_timeout_s=1) as service:
        async with httpx.AsyncClient(base_url=service.url, timeout=30) as http:
            whole = await undisturbed(service, "undisturbed", ROWS)
            await open_session(service.url, "pump")
            await replay(http, "pump", ROWS[:5], 1)
            await until(lambda: is_level(master), "the replica has steps 1 to 5")
            cut_off(master, replica)
            await replay(http, "pump", ROWS[:9], 6)
            await asyncio.to_thread(master.kill)
            replica.signal(signal.SIGCONT)
            await until(lambda: deployment.master_port() == replica.port, "the replica is promoted")
            gap = await settled(http, "pump", ROWS, 10)
            assert (gap.status_code, gap.json()["code"], gap.json()["current_step"]) == (409, "step_gap", 5)
            again = await replay(http, "pump", ROWS, 6)
            assert [answer["outputs"] for answer in again] == whole[5:]
            assert not any(answer["replayed"] for answer in again)


async def test_no_session_is_harmed_by_a_master_that_is_killed_under_load(deployment: SentinelDeployment) -> None:
    master, replica = deployment.master, deployment.replica

    async def harm() -> None:
        await asyncio.sleep(1)
        cut_off(master, replica)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(master.kill)
        replica.signal(signal.SIGCONT)
        await until(lambda: deployment.master_port() == replica.port, "the replica is promoted")

    with ConveyorServer(redis_url=deployment.url, store_timeout_s=1) as service:
        report = await besiege(service.url, harm, Terms(forgets=True))
    assert report.violations == []
    assert report.rewinds > 0, "steps were lost that clients had been told of"


async def test_an_old_master_is_left_when_another_is_named(deployment: SentinelDeployment) -> None:
    """An operator asks for the failover. The old master lives, and for a while takes writes that are lost."""
    master, replica = deployment.master, deployment.replica

    async def harm() -> None:
        await asyncio.sleep(0.5)
        redis_command(deployment.sentinels[0].url, "SENTINEL", "FAILOVER", SERVICE)
        await until(lambda: deployment.master_port() == replica.port, "the replica is promoted")
        await asyncio.sleep(2 * LOOK_EVERY_S)
        before = written(master)
        await asyncio.sleep(0.5)
        assert deployment.is_master(master), "nobody has told it yet"
        assert written(master) == before, "and all the same no step goes there"

    with ConveyorServer(redis_url=deployment.url, store_timeout_s=1) as service:
        report = await besiege(service.url, harm, Terms(forgets=True))
    assert report.violations == []


def written(server: RedisServer) -> int:
    """How many scripts a server has run."""
    return int(redis_command(server.url, "INFO", "commandstats")["cmdstat_evalsha"]["calls"])
