"""Exchanges with Redis, with an honest account of what may have happened when one fails."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import hiredis
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError

from service.adapters.redis_channel import Channel, ReplyError
from service.adapters.redis_tls import refusal
from service.core.errors import OutcomeUnknown, StoreFull, StoreUnavailable

_CREDENTIALS = ("NOAUTH", "WRONGPASS", "NOPERM")


class Script:
    """A Lua script of ``adapters/lua``, called by its digest."""

    def __init__(self, name: str) -> None:
        self._source = files("service.adapters").joinpath("lua", f"{name}.lua").read_bytes()
        self._digest = hashlib.sha1(self._source, usedforsecurity=False).hexdigest().encode()

    def packed(self, keys: int, arguments: int, bulks: Sequence[bytes], *, by_source: bool = False) -> bytes:
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


class RedisLink:
    """Sends commands over one connection. `timeout_s` bounds an exchange, and the making of a connection.

    The client library's own retries are off: it would repeat a write whose reply was lost without telling anyone. Here
    a failed exchange is repeated once, on another connection, and ends in

    - `StoreUnavailable`: the command was not carried out, for certain;
    - `OutcomeUnknown`: it was sent, and what became of it nobody knows;
    - `StoreFull`: Redis refused it for want of memory.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._pool = ConnectionPool.from_url(
            url,
            driver_info=None,  # CLIENT SETINFO would have to be allowed, and Redis 6 and 7.0 do not know it
            protocol=2,  # replies in the order of the commands, and nothing in between
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
        self._channel: Channel | None = None
        self._opening = asyncio.Lock()

    async def run(self, script: Script, keys: int, arguments: int, bulks: Sequence[bytes]) -> Reply:
        """Call a script whose repetition does no harm; the server is sent its source where it does not know it.

        `bulks` are the keys and arguments as they go over the wire, see `bulk`, in as many pieces as you like.
        """
        return await self._insist(
            script.packed(keys, arguments, bulks), lambda: script.packed(keys, arguments, bulks, by_source=True)
        )

    async def call(self, *command: Any) -> Reply:
        """Send a command whose repetition does no harm."""
        return await self._insist(hiredis.pack_command(command))

    async def many(self, command: bytes, bulks: Sequence[bytes]) -> Reply:
        """Send a command whose repetition does no harm, of arguments that are packed already, see `bulk`."""
        return await self._insist(b"".join((b"*%d\r\n" % (1 + len(bulks)), bulk(command), *bulks)))

    async def call_once(self, *command: Any) -> Any:
        """Send a command; return the reply."""
        try:
            return await self._exchange(hiredis.pack_command(command))
        except ReplyError as error:
            raise _refused(error) from error

    async def close(self) -> None:
        if self._channel is not None:
            self._channel.close()

    async def _insist(self, command: bytes, unknown: Callable[[], bytes] | None = None) -> Reply:
        """Send a command, once more where that fails; `unknown` in its place where its script is not known."""
        failed = False
        lost: OutcomeUnknown | None = None
        while True:
            try:
                return Reply(await self._exchange(command), repeated=lost is not None)
            except ReplyError as error:
                if error.code != "NOSCRIPT" or unknown is None:
                    raise lost or _refused(error) from error
                command, unknown = unknown(), None
            except (StoreUnavailable, OutcomeUnknown) as error:
                if failed:
                    # Whatever the second attempt met, the first may have been carried out.
                    raise lost or error from None
                failed = True
                lost = error if isinstance(error, OutcomeUnknown) else None

    async def _exchange(self, command: bytes) -> Any:
        channel = self._channel
        if channel is None or channel.closed:
            channel = await self._open()
        try:
            return await channel.exchange(command)
        except (OSError, TimeoutError) as error:
            raise OutcomeUnknown(f"Redis did not answer ({str(error) or type(error).__name__})") from error

    def _connection(self) -> AbstractConnection:
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        return connection

    async def _open(self) -> Channel:
        async with self._opening:
            if self._channel is None or self._channel.closed:
                try:
                    async with asyncio.timeout(self._timeout_s):
                        self._channel = await Channel.open(self._connection(), self._timeout_s)
                except (RedisError, OSError, TimeoutError) as error:
                    raise _unavailable(error) from error
            return self._channel


def _refused(error: ReplyError) -> StoreUnavailable | StoreFull:
    if error.code == "OOM":
        return StoreFull(f"Redis is out of memory: {error}")
    if error.code in _CREDENTIALS:
        return StoreUnavailable("Redis refused the service's credentials")
    return StoreUnavailable(f"Redis cannot be used: {error}")


def _unavailable(error: BaseException) -> StoreUnavailable:
    if isinstance(error, AuthenticationError | AuthorizationError):
        return StoreUnavailable("Redis refused the service's credentials")
    return StoreUnavailable(f"Redis cannot be used: {refusal(error) or str(error) or type(error).__name__}")
