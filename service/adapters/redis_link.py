"""Exchanges with Redis, with an honest account of what may have happened when one fails."""

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from service.adapters.redis_channel import Channel, ReplyError, pack
from service.adapters.redis_connector import Connector
from service.adapters.redis_durability import Durability, Guard
from service.core.errors import OutcomeUnknown, StoreFull, StoreUnavailable

_CREDENTIALS = ("NOAUTH", "WRONGPASS")
DEMOTED = ("READONLY", "MASTERDOWN")
"""Codes of a server that is not the master, or no longer."""


class Script:
    """A Lua script of ``adapters/lua``, called by its digest."""

    def __init__(self, name: str) -> None:
        self._source = files("service.adapters").joinpath("lua", f"{name}.lua").read_bytes()
        self._digest = hashlib.sha1(self._source, usedforsecurity=False).hexdigest().encode()

    def packed(
        self, keys: int, arguments: int, bulks: Sequence[bytes | memoryview], *, by_source: bool = False
    ) -> bytes:
        """Return a call as it goes over the wire, of keys and arguments that are packed already."""
        command, script = (b"EVAL", self._source) if by_source else (b"EVALSHA", self._digest)
        head = b"*%d\r\n" % (3 + keys + arguments)
        return b"".join((head, bulk(command), bulk(script), bulk(b"%d" % keys), *bulks))


def bulk(value: bytes) -> bytes:
    """Return a string as it goes over the wire (RESP: `$`, length, CRLF, bytes, CRLF)."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


class Reply(NamedTuple):
    """What Redis answered. `repeated` says that the command may have been carried out before, its reply lost."""

    value: Any
    repeated: bool


class NotConfirmed(OutcomeUnknown):
    """A command was carried out, and `reply` says how, but it is not as safe as was asked for."""

    def __init__(self, reply: Reply) -> None:
        super().__init__("Redis did not confirm in time that the write is as safe as it has to be")
        self.reply = reply


class RedisLink:
    """Sends commands over one connection. `timeout_s` bounds an exchange, and the making of a connection.

    The client library's own retries are off: it would repeat a write whose reply was lost without telling anyone. Here
    a failed exchange is repeated once, on another connection. Where no reply came in time, little more is spent on
    that (`patience_s`, in seconds), and until the server answers again nothing is sent, see `Connector`. It ends in

    - `StoreUnavailable`: the command was not carried out, for certain;
    - `OutcomeUnknown`: it was sent, and what became of it nobody knows;
    - `StoreFull`: Redis refused it for want of memory.

    Where a `durability` is asked for, `run`, `many`, `call_once` and `all_once` tell what Redis has not confirmed, and
    no server is used that cannot give it. A server that says that it is not the master is left: the next exchange asks
    anew which one is.
    """

    def __init__(self, url: str, *, timeout_s: float, durability: Durability = "none") -> None:
        self._connector = Connector(url, timeout_s=timeout_s, durability=durability)

    @property
    def patience_s(self) -> float:
        return self._connector.patience_s

    async def run(self, script: Script, keys: int, arguments: int, bulks: Sequence[bytes | memoryview]) -> Reply:
        """Call a script whose repetition does no harm; the server is sent its source where it does not know it.

        `bulks` are the keys and arguments as they go over the wire, see `bulk`, in as many pieces as you like.
        """
        return await self._insist(
            script.packed(keys, arguments, bulks),
            lambda: script.packed(keys, arguments, bulks, by_source=True),
        )

    async def call(self, *command: Any) -> Reply:
        """Send a command whose repetition does no harm."""
        return await self._insist(pack(*command), guarded=False)

    async def many(self, command: bytes, bulks: Sequence[bytes]) -> Reply:
        """Send a command whose repetition does no harm, of arguments that are packed already, see `bulk`."""
        return await self._insist(packed(command, bulks))

    def send(self, script: Script, keys: int, bulks: Sequence[bytes]) -> None:
        """Call a script of which nobody wants to know what it says, if there is a connection.

        It goes by its source: nobody would hear that the server does not know it.
        """
        if (channel := self._connector.channel) is not None:
            channel.send(script.packed(keys, 0, bulks, by_source=True))

    async def call_once(self, *command: Any) -> Any:
        """Send a command; return the reply."""
        try:
            return await self._exchange(pack(*command))
        except ReplyError as error:
            raise self.refused(error) from error

    async def all_once(
        self, commands: Sequence[bytes], fences: Iterator[int], within_s: float | None = None
    ) -> tuple[list[Any], bool]:
        """Send packed commands in one piece.

        Returns what `Channel.exchange_all` does, and whether all of it is as safe as it has to be. `fences` are hash
        tags whose keys the server is believed to serve, one at least, for what has to follow the commands. With
        `within_s` no reply is waited for longer than that. Raises `StoreUnavailable`: none was sent.
        """
        channel = self._connector.channel or await self._connector.open()
        guard = self._connector.guard
        behind = () if guard is None else guard.behind(next(fences))
        try:
            replies = await asyncio.wait_for(channel.exchange_all((*commands, *behind)), within_s)
        except TimeoutError as error:
            replies = [error] * (len(commands) + len(behind))
        if isinstance(replies[-1], TimeoutError):
            self._connector.late(channel)
        if guard is None:
            return replies, True
        return replies[: len(commands)], await _confirmed(channel, guard, replies[len(commands) :], fences)

    def leave(self) -> None:
        """Use another connection from now on; what is in flight is still answered."""
        self._connector.leave()

    async def close(self) -> None:
        await self._connector.close()

    def refused(self, error: ReplyError) -> StoreUnavailable | StoreFull:
        """Return what a refusal means, and leave a server that is not the master."""
        if error.code in DEMOTED:
            self.leave()
        return refusal(error)

    async def _insist(
        self, command: bytes, unknown: Callable[[], bytes] | None = None, *, guarded: bool = True
    ) -> Reply:
        """Send a command, once more where that fails; `unknown` in its place where its script is not known."""
        failed = False
        lost: OutcomeUnknown | None = None
        while True:
            try:
                within_s = self.patience_s if is_late(lost) else None
                return Reply(await self._exchange(command, guarded, within_s), repeated=lost is not None)
            except NotConfirmed as error:
                raise NotConfirmed(Reply(error.reply.value, repeated=lost is not None)) from None
            except ReplyError as error:
                if error.code != "NOSCRIPT" or unknown is None:
                    refused = self.refused(error)
                    raise lost or refused from error
                command, unknown = unknown(), None
            except (StoreUnavailable, OutcomeUnknown) as error:
                if failed:
                    # Whatever the second attempt met, the first may have been carried out.
                    raise lost or error from None
                failed = True
                lost = error if isinstance(error, OutcomeUnknown) else None

    async def _exchange(self, command: bytes, guarded: bool = True, within_s: float | None = None) -> Any:
        channel = self._connector.channel or await self._connector.open()
        try:
            if guarded and self._connector.guard is not None:
                return await asyncio.wait_for(_guarded(channel, command, self._connector.guard), within_s)
            exchange = channel.exchange(command)
            return await (exchange if within_s is None else asyncio.wait_for(exchange, within_s))
        except OSError as error:
            if isinstance(error, TimeoutError):
                self._connector.late(channel)
            raise unanswered(error) from error


async def _confirmed(channel: Channel, guard: Guard, replies: list[Any], fences: Iterator[int]) -> bool:
    """Read what followed some commands; send it again, with the next of `fences`, where only its place was wrong."""
    while guard.is_elsewhere(replies) and not channel.closed:
        if (tag := next(fences, None)) is None:
            return False
        replies = await channel.exchange_all(guard.behind(tag))
    return guard.confirms(replies)


async def _guarded(channel: Channel, command: bytes, guard: Guard) -> Any:
    reply, *confirmation = await channel.exchange_all((command, *guard.behind(0)))
    if isinstance(reply, Exception):
        raise reply
    if not guard.confirms(confirmation):
        raise NotConfirmed(Reply(reply, repeated=False))
    return reply


def packed(command: bytes, bulks: Sequence[bytes]) -> bytes:
    """Return a command as it goes over the wire, of arguments that are packed already, see `bulk`."""
    return b"".join((b"*%d\r\n" % (1 + len(bulks)), bulk(command), *bulks))


def unanswered(error: BaseException) -> OutcomeUnknown:
    """Return what it means that a command was sent and no reply came."""
    unknown = OutcomeUnknown(f"Redis did not answer ({str(error) or type(error).__name__})")
    unknown.__cause__ = error
    return unknown


def is_late(lost: OutcomeUnknown | None) -> bool:
    """Return whether a command was waited for in vain for as long as one may be. See `unanswered`."""
    return lost is not None and isinstance(lost.__cause__, TimeoutError)


def refusal(error: ReplyError) -> StoreUnavailable | StoreFull:
    if error.code == "OOM":
        return StoreFull(f"Redis is out of memory: {error}")
    if error.code in _CREDENTIALS:
        return StoreUnavailable("Redis refused the service's credentials")
    if error.code == "NOPERM":  # its words may name the user
        return StoreUnavailable(
            "Redis does not allow the service's user all that docker/redis/users.acl lists; ACL LOG tells what it lacks"
        )
    return StoreUnavailable(f"Redis cannot be used: {error}")
