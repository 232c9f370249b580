"""Exchanges with Redis, with an honest account of what may have happened when one fails."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from redis.exceptions import AuthenticationError, AuthorizationError, RedisError

from service.adapters.redis_channel import Channel, ReplyError, pack
from service.adapters.redis_dial import Dial, dial
from service.adapters.redis_durability import Durability, Guard, guard_for
from service.adapters.redis_tls import tls_refusal
from service.core.errors import OutcomeUnknown, StoreFull, StoreUnavailable

_CREDENTIALS = ("NOAUTH", "WRONGPASS", "NOPERM")
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
    a failed exchange is repeated once, on another connection, and ends in

    - `StoreUnavailable`: the command was not carried out, for certain;
    - `OutcomeUnknown`: it was sent, and what became of it nobody knows;
    - `StoreFull`: Redis refused it for want of memory.

    Where a `durability` is asked for, `run`, `many`, `call_once` and `all_once` tell what Redis has not confirmed, and
    no server is used that cannot give it. A server that says that it is not the master is left: the next exchange asks
    anew which one is.
    """

    def __init__(self, url: str, *, timeout_s: float, durability: Durability = "none") -> None:
        self._durability = durability
        self._guard: Guard | None = None
        self._timeout_s = timeout_s
        self._dial: Dial = dial(url, timeout_s)
        self._channel: Channel | None = None
        self._left: set[Channel] = set()
        self._opening = asyncio.Lock()

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

    async def call_once(self, *command: Any) -> Any:
        """Send a command; return the reply."""
        try:
            return await self._exchange(pack(*command))
        except ReplyError as error:
            raise self.refused(error) from error

    async def all_once(self, commands: Sequence[bytes], tag: int) -> tuple[list[Any], bool]:
        """Send packed commands, of keys with this hash tag among others, in one piece.

        Returns what `Channel.exchange_all` does, and whether all of it is as safe as it has to be. Raises
        `StoreUnavailable`: none was sent.
        """
        channel = self._channel
        if channel is None or channel.closed:
            channel = await self._open()
        if (guard := self._guard) is None:
            return await channel.exchange_all(commands), True
        replies = await channel.exchange_all((*commands, *guard.behind(tag)))
        return replies[: len(commands)], guard.confirms(replies[len(commands) :])

    def leave(self) -> None:
        """Use another connection from now on; what is in flight is still answered."""
        if (channel := self._channel) is None:
            return
        self._channel = None
        self._left.add(channel)

        def close() -> None:
            self._left.discard(channel)
            channel.close()

        # By then all of it has been answered, or is late.
        asyncio.get_running_loop().call_later(self._timeout_s, close)

    async def close(self) -> None:
        for channel in {self._channel, *self._left}:
            if channel is not None:
                channel.close()
        await self._dial.close()

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
                return Reply(await self._exchange(command, guarded), repeated=lost is not None)
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

    async def _exchange(self, command: bytes, guarded: bool = True) -> Any:
        channel = self._channel
        if channel is None or channel.closed:
            channel = await self._open()
        try:
            if guarded and self._guard is not None:
                return await _guarded(channel, command, self._guard)
            return await channel.exchange(command)
        except (OSError, TimeoutError) as error:
            raise unanswered(error) from error

    async def _open(self) -> Channel:
        async with self._opening:
            if self._channel is None or self._channel.closed:
                try:
                    async with asyncio.timeout(self._timeout_s):
                        channel = await self._dial.open()
                        try:
                            self._guard = await guard_for(self._durability, channel, self._timeout_s)
                            if channel.closed:  # nothing that is sent on it would ever end
                                raise ConnectionError("the connection broke as it was made")
                        except BaseException:
                            channel.close()
                            raise
                    self._channel = channel
                except (RedisError, ReplyError, OSError, TimeoutError) as error:
                    raise _unavailable(error) from error
            return self._channel


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


def refusal(error: ReplyError) -> StoreUnavailable | StoreFull:
    if error.code == "OOM":
        return StoreFull(f"Redis is out of memory: {error}")
    if error.code in _CREDENTIALS:
        return StoreUnavailable("Redis refused the service's credentials")
    return StoreUnavailable(f"Redis cannot be used: {error}")


def _unavailable(error: BaseException) -> StoreUnavailable:
    if isinstance(error, AuthenticationError | AuthorizationError):
        return StoreUnavailable("Redis refused the service's credentials")
    return StoreUnavailable(f"Redis cannot be used: {tls_refusal(error) or str(error) or type(error).__name__}")
