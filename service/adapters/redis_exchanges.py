"""Exchanges about what is kept beside sessions: a few small keys, all with one hash tag."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from service.adapters.redis_channel import pack
from service.adapters.redis_cluster import Call, Cluster
from service.adapters.redis_link import Reply, Script
from service.core.errors import ConveyorError

TAG = 0
"""Hash tag in braces in each of these keys: on a cluster they are at one node, and one script may use several."""


class Exchanges(Protocol):
    """See `service.adapters.redis_link.RedisLink`, which is one."""

    async def run(self, script: Script, keys: int, arguments: int, bulks: Sequence[bytes]) -> Reply: ...

    async def call(self, *command: Any) -> Reply: ...

    async def call_once(self, *command: Any) -> Any: ...


class TaggedLink:
    """`Exchanges` with the node of a cluster that serves `TAG`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def run(self, script: Script, keys: int, arguments: int, bulks: Sequence[bytes]) -> Reply:
        packed = partial(script.packed, keys, arguments, bulks)
        return await self._send(Call(TAG, packed(), partial(packed, by_source=True)))

    async def call(self, *command: Any) -> Reply:
        return await self._send(Call(TAG, pack(*command)))

    async def call_once(self, *command: Any) -> Any:
        return (await self._send(Call(TAG, pack(*command), repeatable=False))).value

    async def _send(self, call: Call) -> Reply:
        (outcome,) = await self._cluster.send([call])
        if isinstance(outcome, ConveyorError):
            raise outcome
        return outcome
