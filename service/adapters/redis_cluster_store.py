"""`StateStore` on a Redis Cluster: one script call per hash tag, those of a node in one piece."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from service.adapters.redis_address import Address
from service.adapters.redis_cluster import Call, Cluster, TryAgain
from service.adapters.redis_durability import Durability, NotDurable, fields
from service.adapters.redis_exchanges import TaggedLink
from service.adapters.redis_health import Examined, examine, run_of
from service.adapters.redis_link import NotConfirmed, Reply, Script, packed
from service.adapters.redis_listing import Scanned, Source, page, scan_position
from service.adapters.redis_records import (
    commit_bulks,
    commit_values,
    create_bulks,
    doubted,
    key_bulk,
    tag_of,
    unpacked,
    verdict,
)
from service.adapters.redis_store import unconfirmed
from service.adapters.redis_url import shown
from service.core.errors import ConveyorError, OutcomeUnknown, StoreUnavailable
from service.core.packed import unpack
from service.core.ports import Commit, Lost, Page, StoreHealth
from service.core.session import SessionKey

T = TypeVar("T")


class RedisClusterStore:
    """See `service.core.ports.StateStore`, and `RedisStore` for what happens when an exchange fails.

    What fails at one node concerns its own sessions alone.
    """

    def __init__(
        self, url: str, *, timeout_s: float = 2.0, description: str | None = None, durability: Durability = "none"
    ) -> None:
        self._durability = durability
        self._cluster = Cluster(url, timeout_s=timeout_s, durability=durability)
        self.link = TaggedLink(self._cluster)
        """For what else this cluster keeps, beside sessions."""
        self._commit = Script("commit")
        self._create = Script("create")
        self._description = description or f"Redis Cluster at {shown(url)}"
        self._source = Source([-1, "", 0], _is_position, self._scan, self.load)

    async def load(self, keys: Sequence[SessionKey]) -> list[bytes | ConveyorError | None]:
        def read(tag: int, some: Sequence[SessionKey]) -> Call:
            return Call(tag, packed(b"MGET", [key_bulk(key) for key in some]))

        return unpack([_read(outcome) for outcome in await self._spread(keys, tag_of, read)])

    async def commit(self, commits: Sequence[Commit]) -> list[Lost | ConveyorError | None]:
        def write(tag: int, some: Sequence[tuple[Commit, bytes]]) -> Call:
            call = partial(self._commit.packed, len(some), 3 * len(some), commit_bulks(*zip(*some, strict=True)))
            return Call(tag, call(), partial(call, by_source=True))

        writes = list(zip(commits, commit_values(commits), strict=True))
        outcomes = await self._spread(writes, _tag_of_write, write)
        return unpacked([_made(outcome, commit) for outcome, commit in zip(outcomes, commits, strict=True)])

    def prefetch(self, keys: Sequence[SessionKey]) -> None:
        """Do nothing: a call for each hash tag would cost more than it saves."""

    async def create(self, key: SessionKey, record: bytes) -> bytes | None:
        call = partial(self._create.packed, 1, 2, create_bulks(key, record))
        (outcome,) = await self._cluster.send([Call(tag_of(key), call(), partial(call, by_source=True))])
        if isinstance(outcome, ConveyorError):
            raise outcome
        (made,) = unpacked([verdict(outcome.value, b"", record, outcome.repeated)])
        if isinstance(made, ConveyorError):
            raise made
        return made.current if made else None

    async def delete(self, key: SessionKey) -> bool:
        delete = Call(tag_of(key), packed(b"DEL", [key_bulk(key)]), repeatable=False)
        (outcome,) = await self._cluster.send([delete])
        if isinstance(outcome, OutcomeUnknown) and not isinstance(outcome, NotConfirmed):
            # Not sent again: somebody may have opened a session of that name since.
            (record,) = await self.load([key])
            if record is None:
                return True
        if isinstance(outcome, ConveyorError):
            raise outcome
        return bool(outcome.value)

    async def scan(self, tenant: str, model: str | None, cursor: str | None, limit: int) -> Page:
        return await page(self._source, tenant, model, cursor, limit)

    async def health(self) -> StoreHealth:
        slots = await self._cluster.slots()
        nodes = slots.masters()
        looked = await asyncio.gather(*(self._examine(node) for node in nodes), return_exceptions=True)
        found: list[Examined] = []
        refused: list[StoreUnavailable] = []
        for result in looked:
            if isinstance(result, Examined):
                found.append(result)
            elif isinstance(result, StoreUnavailable):
                refused.append(result)
            elif isinstance(result, BaseException):
                raise result
        if refused and (not found or (self._durability == "aof" and isinstance(refused[0], NotDurable))):
            raise refused[0]
        warnings = [f"the sessions of one master are refused: {error.detail}" for error in refused]
        if not slots.complete:
            warnings.append("the cluster has slots that no node serves: their sessions are refused")
        warnings += dict.fromkeys(warning for node in found for warning in node.warnings)
        described = ", ".join(dict.fromkeys(node.description for node in found))
        return StoreHealth(f"{self._description}, {len(nodes)} masters, {described}", warnings)

    async def _examine(self, node: Address) -> Examined:
        ask = partial(self._cluster.call, node)
        state = fields(await ask("CLUSTER", "INFO")).get("cluster_state")
        if state != "ok":
            raise StoreUnavailable(f"{node} says that the cluster's state is {state}")
        return await examine(ask, self._durability, str(node))

    async def close(self) -> None:
        await self._cluster.close()

    async def _spread(
        self, items: Sequence[T], tag: Callable[[T], int], call: Callable[[int, Sequence[T]], Call]
    ) -> list[Reply | ConveyorError]:
        """Make one call per hash tag; return for each item its part of the reply, which is a list of as many.

        Where a slot is being moved, the items of a tag may be at two nodes: each then gets a call of its own.
        """
        tags: defaultdict[int, list[int]] = defaultdict(list)
        for i, item in enumerate(items):
            tags[tag(item)].append(i)
        outcomes: dict[int, Reply | ConveyorError] = {}
        groups = list(tags.items())
        while groups:
            made = await self._cluster.send([call(tag, [items[i] for i in some]) for tag, some in groups])
            again: list[tuple[int, list[int]]] = []
            for (tag_, some), outcome in zip(groups, made, strict=True):
                if isinstance(outcome, TryAgain) and len(some) > 1:
                    again += [(tag_, [i]) for i in some]
                else:
                    outcomes |= zip(some, _parts(outcome, len(some)), strict=True)
            groups = again
        return [outcomes[i] for i in range(len(items))]

    async def _scan(self, position: list[Any], pattern: str, count: int) -> Scanned:
        """Scan the masters in the order of their first slots. A position is a first slot, its node's run, and a cursor.

        A node that serves the slot no longer has handed its keys to another, which is scanned from its beginning, as is
        one that was started anew.
        """
        slot, run, cursor = position
        masters = (await self._cluster.slots()).masters()
        following = [(first, address) for address, first in masters.items() if first >= slot]
        if not following:
            return Scanned([], None)
        first, address = following[0]
        now = await run_of(partial(self._cluster.call, address))
        if (first, now) != (slot, run):
            cursor = 0
        found, keys = await self._cluster.call(address, "SCAN", cursor, "MATCH", pattern, "COUNT", count)
        if int(found):
            return Scanned(keys, [first, now, int(found)])
        return Scanned(keys, [following[1][0], "", 0] if len(following) > 1 else None)


def _tag_of_write(write: tuple[Commit, bytes]) -> int:
    return tag_of(write[0].key)


def _parts(outcome: Reply | ConveyorError, count: int) -> list[Reply | ConveyorError]:
    """Divide the outcome of a call among its keys."""
    if isinstance(outcome, NotConfirmed):
        return [NotConfirmed(Reply(value, outcome.reply.repeated)) for value in outcome.reply.value]
    if isinstance(outcome, ConveyorError):
        return [outcome] * count
    return [Reply(value, outcome.repeated) for value in outcome.value]


def _read(outcome: Reply | ConveyorError) -> bytes | ConveyorError | None:
    """Return what was read: where reading fails, nothing is in doubt."""
    if isinstance(outcome, Reply):
        value: bytes | None = outcome.value
        return value
    if isinstance(outcome, NotConfirmed):
        return unconfirmed()
    if isinstance(outcome, OutcomeUnknown):
        return StoreUnavailable(f"Redis did not answer: {outcome.__cause__ or outcome}")
    return outcome


def _made(outcome: Reply | ConveyorError, commit: Commit) -> Lost | ConveyorError | None:
    if isinstance(outcome, NotConfirmed):
        return doubted(verdict(outcome.reply.value, commit.version, commit.record, outcome.reply.repeated), outcome)
    if isinstance(outcome, ConveyorError):
        return outcome
    return verdict(outcome.value, commit.version, commit.record, outcome.repeated)


def _is_position(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and type(value[0]) is int
        and isinstance(value[1], str)
        and scan_position(value[2])
    )
