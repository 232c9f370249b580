"""Exchanges with the nodes of a Redis Cluster, with an honest account of each command."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, NamedTuple

from service.adapters.redis_address import Address, read_url
from service.adapters.redis_channel import ReplyError, pack
from service.adapters.redis_connector import PATIENCE
from service.adapters.redis_durability import Durability
from service.adapters.redis_link import DEMOTED, NotConfirmed, RedisLink, Reply, is_late, refusal, unanswered
from service.adapters.redis_slots import SLOT_OF_TAG, SlotMap, redirection
from service.adapters.redis_topology import Topology
from service.core.errors import ConveyorError, OutcomeUnknown, StoreUnavailable

REDIS_PORT = 6379
_ASKING = pack("ASKING")
_MAX_REDIRECTIONS = 5


class Call(NamedTuple):
    """A packed command on keys of one hash tag; `by_source` packs it for a node that does not know its script."""

    tag: int
    command: bytes
    by_source: Callable[[], bytes] | None = None
    repeatable: bool = True


class TryAgain(StoreUnavailable):
    """A command on several keys met a slot that is being moved: some of them are there already, some are not yet."""


@dataclass(slots=True)
class _Job:
    """A call on its way. It is done when it has an `outcome`."""

    call: Call
    command: bytes
    asked: Address | None = None
    """The node that an ASK named for the next attempt alone."""
    redirections: int = 0
    failed: bool = False
    lost: OutcomeUnknown | None = None
    outcome: Reply | ConveyorError | None = None


class Cluster:
    """Sends commands to the nodes that serve their keys, all of a node in one piece over its one connection.

    As with `RedisLink`, a call whose exchange failed is made once more if it may be, then perhaps at another node, for
    whatever failed speaks against the map (see `Topology`); each call has an outcome of its own. A call that was
    redirected was not carried out.
    """

    def __init__(self, url: str, *, timeout_s: float, durability: Durability = "none") -> None:
        self._servers = read_url(url, REDIS_PORT)
        if self._servers.path not in ("", "0"):
            raise ValueError(f"a cluster has no databases; {self._servers.path!r} behind the hosts means one")
        self._durability = durability
        self._timeout_s = timeout_s
        self._links: dict[Address, RedisLink] = {}
        for address in self._servers.addresses:
            self._link(address)  # raises for options that cannot be used
        self._topology = Topology(self._servers.addresses, self._ask_for_slots, patience_s=PATIENCE * timeout_s)

    async def send(self, calls: Sequence[Call]) -> list[Reply | ConveyorError]:
        """Make calls; return each one's outcome."""
        todo = jobs = [_Job(call, call.command) for call in calls]
        while todo:
            if self._topology.doubtful:
                await self._topology.refresh()
            by_node: defaultdict[Address | None, list[_Job]] = defaultdict(list)
            for job in todo:
                by_node[job.asked or self._topology.slots.owner(SLOT_OF_TAG[job.call.tag])].append(job)
            await _together([self._exchange(node, some) for node, some in by_node.items()])
            todo = [job for job in todo if job.outcome is None]
        return [job.outcome for job in jobs if job.outcome is not None]

    async def call(self, address: Address, *command: Any) -> Any:
        """Send one node a command that changes nothing; return the reply. Raises `StoreUnavailable`."""
        try:
            return (await self._link(address).call(*command)).value
        except OutcomeUnknown as error:
            self._topology.doubt()
            raise StoreUnavailable(f"Redis at {address} did not answer: {error.__cause__ or error}") from error
        except StoreUnavailable as error:
            self._topology.doubt()
            raise StoreUnavailable(f"{address}: {error.detail}") from error

    async def slots(self) -> SlotMap:
        """Return who serves what. Raises `StoreUnavailable` where no node tells."""
        if self._topology.doubtful:
            await self._topology.refresh()
        if not self._topology.slots.known:
            raise StoreUnavailable(f"no node tells who serves the cluster's sessions: {self._topology.why_unknown}")
        return self._topology.slots

    async def close(self) -> None:
        await self._topology.close()
        for link in self._links.values():
            await link.close()

    def _link(self, address: Address) -> RedisLink:
        if (link := self._links.get(address)) is None:
            link = self._links[address] = RedisLink(
                self._servers.url_of(address), timeout_s=self._timeout_s, durability=self._durability
            )
        return link

    async def _exchange(self, node: Address | None, jobs: list[_Job]) -> None:
        if node is None:
            for job in jobs:
                self._fail(job, StoreUnavailable("no node of the cluster that answers serves the session's slot"))
            return
        commands = []
        for job in jobs:
            commands += [job.command] if job.asked is None else [_ASKING, job.command]
        try:
            link = self._link(node)
            within_s = link.patience_s if any(is_late(job.lost) for job in jobs) else None
            replies, safe = await link.all_once(commands, self._fences(node, jobs), within_s)
        except StoreUnavailable as error:
            for job in jobs:
                self._fail(job, StoreUnavailable(f"{node}: {error.detail}"))
            return
        following = iter(replies)
        for job in jobs:
            if job.asked is not None:
                next(following)
                job.asked = None
            self._take(job, next(following), node)
            if isinstance(job.outcome, Reply) and not safe:
                job.outcome = NotConfirmed(job.outcome)

    def _fences(self, node: Address, jobs: list[_Job]) -> Iterator[int]:
        """Return hash tags that a node serves, if the map is right. What it was asked for it does not serve yet."""
        called = (job.call.tag for job in reversed(jobs) if job.asked is None)
        return islice(chain(called, self._topology.slots.tags_of(node), [jobs[-1].call.tag]), _MAX_REDIRECTIONS)

    def _take(self, job: _Job, reply: Any, node: Address) -> None:
        """Find out what a reply, or the exception in its place, means for a call."""
        if isinstance(reply, ReplyError):
            self._take_refusal(job, reply, node)
        elif isinstance(reply, Exception):
            self._fail(job, unanswered(reply))
        else:
            job.outcome = Reply(reply, repeated=job.lost is not None)

    def _take_refusal(self, job: _Job, error: ReplyError, node: Address) -> None:
        if error.code in ("MOVED", "ASK"):
            job.redirections += 1
            slot, address = redirection(str(error), node)
            if job.redirections > _MAX_REDIRECTIONS:
                job.outcome = job.lost or StoreUnavailable("the nodes of the cluster do not agree who serves a session")
            elif error.code == "ASK":
                job.asked = address
            else:
                self._topology.move(slot, address)
        elif error.code == "NOSCRIPT" and job.call.by_source is not None and job.command is job.call.command:
            job.command = job.call.by_source()
        elif error.code == "TRYAGAIN":
            job.outcome = job.lost or TryAgain(f"Redis cannot be used: {error}")
        else:
            if error.code in ("CLUSTERDOWN", *DEMOTED):
                self._topology.doubt()
            job.outcome = job.lost or refusal(error)

    def _fail(self, job: _Job, error: StoreUnavailable | OutcomeUnknown) -> None:
        """Let a call whose exchange failed be made once more, by a fresh map."""
        self._topology.doubt()
        job.asked = None
        if job.failed or (isinstance(error, OutcomeUnknown) and not job.call.repeatable):
            job.outcome = job.lost or error
        else:
            job.failed = True
            job.lost = error if isinstance(error, OutcomeUnknown) else None

    async def _ask_for_slots(self, address: Address) -> Any:
        return await self.call(address, "CLUSTER", "SLOTS")


async def _together(works: list[Any]) -> None:
    """Wait for all of several coroutines, without tasks for one."""
    if len(works) == 1:
        await works[0]
    else:
        await asyncio.gather(*works)
