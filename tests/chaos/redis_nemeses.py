"""Redis is killed, frozen, filled, emptied, locked, and made somebody's replica."""

import asyncio
import os
import signal
from pathlib import Path
from random import Random

from tests.chaos.checker import Terms
from tests.chaos.deployments import Deployment, single
from tests.chaos.nemesis import Nemesis
from tests.servers import RedisServer

NOBODY = ("127.0.0.1", "1")
"""An address at which no Redis listens: a replica of it keeps what it has."""


async def kill(deployment: Deployment, chance: Random) -> None:
    deployment.redis.kill()
    await asyncio.sleep(chance.uniform(0, 1.5))
    await asyncio.to_thread(deployment.redis.start)


async def cut_power(deployment: Deployment, chance: Random) -> None:
    """With `appendfsync everysec` the last second is in the system's memory, which a power cut empties."""
    log = _append_only_file(deployment.redis)
    flushed = log.stat().st_size
    await asyncio.sleep(chance.uniform(0.1, 0.9))
    deployment.redis.kill()
    os.truncate(log, chance.randint(flushed, log.stat().st_size))
    await asyncio.to_thread(deployment.redis.start)


async def freeze(deployment: Deployment, chance: Random) -> None:
    deployment.redis.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(chance.uniform(0.2, 2.5))
    finally:
        deployment.redis.signal(signal.SIGCONT)


async def pause(deployment: Deployment, chance: Random) -> None:
    milliseconds = chance.randint(100, 2000)
    await deployment.command("CLIENT", "PAUSE", str(milliseconds), chance.choice(["ALL", "WRITE"]))
    await asyncio.sleep(milliseconds / 1000)


async def forget_scripts(deployment: Deployment, chance: Random) -> None:
    await deployment.command("SCRIPT", "FLUSH")


async def fill(deployment: Deployment, chance: Random) -> None:
    await deployment.command("CONFIG", "SET", "maxmemory", "1")
    await asyncio.sleep(chance.uniform(0.1, 1))
    await deployment.command("CONFIG", "SET", "maxmemory", "0")


async def demote(deployment: Deployment, chance: Random) -> None:
    await deployment.command("REPLICAOF", *NOBODY)
    await asyncio.sleep(chance.uniform(0.1, 1))
    await deployment.command("REPLICAOF", "NO", "ONE")


async def change_password(deployment: Deployment, chance: Random) -> None:
    await deployment.command("CONFIG", "SET", "requirepass", "other")
    await deployment.command("CLIENT", "KILL", "TYPE", "normal", password="other")
    await asyncio.sleep(chance.uniform(0.1, 1))
    await deployment.command("CONFIG", "SET", "requirepass", "", password="other")


async def empty(deployment: Deployment, chance: Random) -> None:
    await deployment.command("FLUSHALL")


def _append_only_file(redis: RedisServer) -> Path:
    """The file that Redis appends to: Redis 7 has a folder of them, Redis 6 one."""
    parts = sorted((redis.folder / "appendonlydir").glob("*.incr.aof"))
    return parts[-1] if parts else redis.folder / "appendonly.aof"


NEMESES = [
    Nemesis("Redis: SIGKILL, restart (appendfsync always)", kill, single(appendonly="yes", appendfsync="always")),
    Nemesis(
        "Redis: power cut, restart (appendfsync everysec)",
        cut_power,
        single(appendonly="yes", appendfsync="everysec"),
        Terms(forgets=True),
    ),
    Nemesis("Redis: SIGSTOP, SIGCONT", freeze),
    Nemesis("Redis: CLIENT PAUSE", pause),
    Nemesis("Redis: SCRIPT FLUSH", forget_scripts, terms=Terms(errors=frozenset())),
    Nemesis("Redis: maxmemory reached, lifted", fill),
    Nemesis("Redis: a read-only replica, promoted", demote),
    Nemesis("Redis: password changed, changed back", change_password),
    Nemesis("Redis: FLUSHALL", empty, terms=Terms(forgets=True)),
]
