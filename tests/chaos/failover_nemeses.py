"""Masters are killed: of a Redis Cluster, and behind Sentinel. What their replicas had not got yet is lost."""

import asyncio
import signal
from collections.abc import Callable
from random import Random

from tests.chaos.checker import Terms
from tests.chaos.deployments import Deployment, behind_sentinels, clustered
from tests.chaos.nemesis import Nemesis
from tests.process import wait_until
from tests.redis_deployments import READY_WITHIN_S, cut_off
from tests.servers import RedisServer, redis_command


async def kill_a_master(deployment: Deployment, chance: Random) -> None:
    cluster = deployment.cluster
    assert cluster is not None
    victim = chance.choice(await asyncio.to_thread(cluster.masters))
    replica = await asyncio.to_thread(cluster.replica_of, victim)
    await _behind(victim, replica, chance)
    await asyncio.to_thread(victim.kill)
    replica.signal(signal.SIGCONT)
    await _until(lambda: cluster.is_master(replica))
    await asyncio.to_thread(victim.start)
    await _until(cluster.is_whole)


async def kill_the_master(deployment: Deployment, chance: Random) -> None:
    watched = deployment.sentinels
    assert watched is not None
    port = await asyncio.to_thread(watched.master_port)
    victim, replica = (
        (watched.master, watched.replica) if watched.master.port == port else (watched.replica, watched.master)
    )
    await _behind(victim, replica, chance)
    await asyncio.to_thread(victim.kill)
    replica.signal(signal.SIGCONT)
    await _until(lambda: watched.master_port() == replica.port and watched.is_master(replica))
    await asyncio.to_thread(victim.start)
    # It comes back as a master of its own; the sentinels make it a replica.
    redis_command(victim.url, "REPLICAOF", "127.0.0.1", str(replica.port))
    await _until(watched.agreed)


async def _behind(master: RedisServer, replica: RedisServer, chance: Random) -> None:
    """Half of the time, let the replica have nothing of the last moment."""
    if chance.random() < 0.5:
        await asyncio.to_thread(cut_off, master, replica)
        await asyncio.sleep(chance.uniform(0.1, 0.5))


async def _until(true: Callable[[], bool]) -> None:
    assert await asyncio.to_thread(wait_until, true, 2 * READY_WITHIN_S, 0.05), "the servers do not come to rest"


NEMESES = [
    Nemesis("Cluster: a master of three, SIGKILL", kill_a_master, clustered(), Terms(forgets=True)),
    Nemesis("Cluster: the same, durability replica", kill_a_master, clustered(durability="replica")),
    Nemesis("Sentinel: the master, SIGKILL", kill_the_master, behind_sentinels, Terms(forgets=True)),
]
