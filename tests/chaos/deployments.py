"""What is besieged: real processes, in the arrangements that docs/operations.md describes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.faults.test_workers import workers
from tests.proxy import Proxy
from tests.redis_clusters import ClusterDeployment, cluster_deployment
from tests.redis_deployments import SentinelDeployment, sentinel_deployment
from tests.servers import ConveyorCommand, ConveyorServer, RedisServer, redis_command
from tests.test_gateway import Nginx

TIMEOUTS = {"store_timeout_s": 1, "step_timeout_s": 4}
"""Shorter than the service's own, so that a fault of a few seconds outlasts them."""

T = TypeVar("T")


@dataclass
class Deployment:
    """`url` is where clients go. `proxy` stands between the service and Redis, where there is one.

    `cluster` and `sentinels` are the Redis servers of services that have more than one; `redis` is then the first.
    """

    redis: RedisServer
    services: list[ConveyorServer]
    url: str
    proxy: Proxy | None = None
    cluster: ClusterDeployment | None = None
    sentinels: SentinelDeployment | None = None

    async def command(self, *words: str, password: str = "") -> Any:
        """Return Redis's answer to a command, which does not pass through the proxy."""
        as_service = password and not self.redis.restricted  # else an admin gives it, whose password is another
        url = self.redis.url.replace("//", f"//:{password}@") if as_service else self.redis.url
        return await asyncio.to_thread(redis_command, url, *words)

    def printed(self) -> str:
        """What the services have printed."""
        return "".join(service.output() for service in self.services)


Deployed = Callable[[], AbstractAsyncContextManager[Deployment]]


def single(**redis_options: str) -> Deployed:
    """One service on a Redis with these options."""

    @asynccontextmanager
    async def deployed() -> AsyncIterator[Deployment]:
        async with AsyncExitStack() as stack:
            redis = await _entered(stack, RedisServer(**redis_options))
            served = await _entered(stack, _service(redis.url))
            yield Deployment(redis, [served], served.url)

    return deployed


@asynccontextmanager
async def proxied(**settings: object) -> AsyncIterator[Deployment]:
    """One service, with these settings, whose way to Redis leads through a proxy."""
    async with AsyncExitStack() as stack:
        redis = await _entered(stack, RedisServer())
        proxy = await stack.enter_async_context(Proxy(redis.url))
        served = await _entered(stack, _service(proxy.url, **settings))
        yield Deployment(redis, [served], served.url, proxy)


@asynccontextmanager
async def two_workers() -> AsyncIterator[Deployment]:
    """One service of two workers."""
    async with AsyncExitStack() as stack:
        redis = await _entered(stack, RedisServer())
        served = await _entered(stack, workers(2, redis_url=redis.url, **TIMEOUTS))
        yield Deployment(redis, [served], served.url)


@asynccontextmanager
async def gateway() -> AsyncIterator[Deployment]:
    """Two replicas on one Redis, behind the compose file's nginx."""
    async with AsyncExitStack() as stack:
        redis = await _entered(stack, RedisServer())
        replicas = [await _entered(stack, _service(redis.url)) for _ in range(2)]
        nginx = await _entered(stack, Nginx(*[replica.port for replica in replicas]))
        yield Deployment(redis, replicas, nginx.url)


def clustered(**settings: object) -> Deployed:
    """One service, with these settings, on a cluster of three masters and three replicas."""

    @asynccontextmanager
    async def deployed() -> AsyncIterator[Deployment]:
        async with AsyncExitStack() as stack:
            cluster = await _entered(stack, cluster_deployment())
            served = await _entered(stack, _service(cluster.url, **settings))
            yield Deployment(cluster.nodes[0], [served], served.url, cluster=cluster)

    return deployed


@asynccontextmanager
async def behind_sentinels() -> AsyncIterator[Deployment]:
    """One service on the master that three sentinels name, which has a replica."""
    async with AsyncExitStack() as stack:
        sentinels = await _entered(stack, sentinel_deployment())
        served = await _entered(stack, _service(sentinels.url))
        yield Deployment(sentinels.master, [served], served.url, sentinels=sentinels)


def _service(redis_url: str, **settings: object) -> ConveyorServer:
    return ConveyorCommand(redis_url=redis_url, model_trial_s=0, **TIMEOUTS, **settings)


async def _entered(stack: AsyncExitStack, server: AbstractContextManager[T]) -> T:
    """Start a server, without holding up the event loop; it is stopped when the stack is left."""
    started = await asyncio.to_thread(server.__enter__)

    async def stop(*exc: Any) -> None:
        await asyncio.to_thread(server.__exit__, *exc)

    stack.push_async_exit(stop)
    return started
