"""How safe a write must be before it is answered, and how Redis is asked for it."""

from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Any, Literal

from service.adapters.redis_channel import Channel, ReplyError, pack
from service.core.errors import StoreUnavailable

Durability = Literal["none", "aof", "replica"]
Ask = Callable[..., Awaitable[Any]]
"""Sends a command that changes nothing; returns the reply."""

FENCE = "conveyor:{%d}"
"""A key beside those of sessions, by its hash tag."""

_SHARE = 0.75
"""Of the time that an exchange may take, what may be spent waiting for the confirmation."""


class NotDurable(StoreUnavailable):
    """The Redis that was found cannot give the durability that was asked for; the message says what to do."""


class Guard:
    """Two commands that follow others in the same piece, and tell whether what those saw and wrote is safe.

    WAIT and WAITAOF speak of the last write of their own connection, and of nothing where there was none. But what
    has to be safe may have been written over another one: when a commit is repeated, or when a stored answer is read
    to be given again. So a write of our own comes first, the fence. Replication and the file keep the order: where the
    fence is safe, so is all that was there before it.
    """

    def __init__(self, durability: Durability, timeout_s: float) -> None:
        timeout_ms = round(_SHARE * timeout_s * 1000)
        self._in_file = durability == "aof"
        self._wait = pack("WAITAOF", 1, 0, timeout_ms) if self._in_file else pack("WAIT", 1, timeout_ms)

    def behind(self, tag: int) -> tuple[bytes, bytes]:
        """Return what to send behind commands; of keys with this hash tag, or of any where there is no cluster."""
        return _fence(tag), self._wait

    def confirms(self, replies: Sequence[Any]) -> bool:
        """Read the replies to `behind`, or the exceptions in their place."""
        fence, count = replies
        return fence == b"OK" and self._suffices(count)

    def is_elsewhere(self, replies: Sequence[Any]) -> bool:
        """Return whether nothing is wrong but that another node serves the fence's slot, or is about to.

        Nothing of what came before the fence is in doubt then, but nothing was confirmed of it either: another fence
        that this node does serve will tell.
        """
        fence, count = replies
        return isinstance(fence, ReplyError) and fence.code in ("MOVED", "ASK") and self._suffices(count)

    def _suffices(self, count: Any) -> bool:
        return not isinstance(count, Exception) and int(count[0] if self._in_file else count) >= 1


@lru_cache
def _fence(tag: int) -> bytes:
    return pack("SET", FENCE % tag, b"")


async def guard_for(durability: Durability, channel: Channel, timeout_s: float) -> Guard | None:
    """Return what has to follow the commands to a server that was just connected to.

    Raises `NotDurable` where it cannot give the durability, and what `Channel.exchange` raises.
    """
    if durability == "none":
        return None
    if durability == "aof":

        async def ask(*command: str) -> Any:
            return await channel.exchange(pack(*command))

        info = fields(await ask("INFO"))
        require_file(info, await appendfsync(ask, info), "Redis")
        if not knows_waitaof(info):
            return None  # it answers nothing before it is on disk
    return Guard(durability, timeout_s)


async def appendfsync(ask: Ask, info: dict[str, str]) -> str | None:
    """Return when a server without WAITAOF flushes its file to disk; None where that may not be asked, or need not."""
    if knows_waitaof(info):
        return None
    try:
        found = await ask("CONFIG", "GET", "appendfsync")
    except (ReplyError, StoreUnavailable):
        return None
    return found[1].decode() if found else None


def fields(info: bytes) -> dict[str, str]:
    """Read what INFO or CLUSTER INFO says."""
    return dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)


def knows_waitaof(info: dict[str, str]) -> bool:
    """Return whether a server has WAITAOF, by what INFO says. Valkey calls itself Redis 7.2 there."""
    major, minor, *_ = (int(part) for part in info.get("redis_version", "0.0").split(".")[:2])
    return (major, minor) >= (7, 2)


def require_replica(info: dict[str, str], where: str) -> str:
    """Return how a server confirms that a replica has a write, in words. Raises `NotDurable`."""
    if info.get("connected_slaves", "0") == "0":
        raise NotDurable(f"durability replica: {where} has no replica; connect one, or no step can be answered")
    return "durability replica (WAIT)"


def require_file(info: dict[str, str], fsync: str | None, where: str) -> str:
    """Return how a server confirms that a write is on disk, in words. Raises `NotDurable`.

    `fsync` is what `appendfsync` found.
    """
    if info.get("aof_enabled") != "1":
        raise NotDurable(
            f"durability aof: {where} keeps no append-only file; set appendonly yes and appendfsync always"
        )
    if knows_waitaof(info):
        return "durability aof (WAITAOF)"
    if fsync == "always":
        return "durability aof (appendfsync always)"
    found = "may not be asked when it writes to disk (CONFIG GET)" if fsync is None else f"has appendfsync {fsync}"
    raise NotDurable(
        f"durability aof: {where} is version {info.get('redis_version')}, which has no WAITAOF (7.2 has), and {found}; "
        "set appendfsync always, or use Redis 7.2 or newer"
    )
