"""One connection to Redis with many exchanges in flight: written when they are made, answered in their order."""

import asyncio
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol, Self

import hiredis
from redis.asyncio.connection import AbstractConnection

_UNIX_BUFFER = 2**20
"""Bytes that a unix socket takes at once. By default that is what one batch's commit has, and of the next one the rest
would wait here for the end of whatever the event loop does meanwhile. (A TCP socket's grows by itself.)"""


class ReplyError(Exception):
    """Redis refused a command. `code` is the first word of what it said: ``OOM``, ``NOSCRIPT``, ``READONLY``, …"""

    @property
    def code(self) -> str:
        return str(self).split(" ", 1)[0]


def pack(*command: Any) -> bytes:
    """Return a command as it goes over the wire."""
    packed: bytes = hiredis.pack_command(command)
    return packed


class _Awaiting(Protocol):
    """Gets one reply."""

    def done(self) -> bool: ...

    def set_result(self, result: Any, /) -> None: ...

    def set_exception(self, exception: BaseException, /) -> None: ...


class _Timer(Protocol):
    def cancel(self) -> None: ...


class Channel(asyncio.Protocol):
    """Made by `open`. A connection that fails or is late with a reply is closed, with all exchanges on it.

    The client library's own connections carry one exchange at a time through streams and locks, for several times the
    cost of a batch's commit. It still does what is hard: it reads the URL, connects, encrypts, authenticates.
    """

    def __init__(self, stream: asyncio.StreamWriter, timeout_s: float) -> None:
        self._stream = stream  # which would close its transport with its own end
        self._transport: Any = stream.transport
        self._transport.set_protocol(self)
        connection: socket.socket | None = self._transport.get_extra_info("socket")
        if connection is not None and connection.family == socket.AF_UNIX:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNIX_BUFFER)
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=ReplyError)
        self._waiting: deque[tuple[_Awaiting, _Timer]] = deque()
        self.closed = False

    @classmethod
    async def open(cls, connection: AbstractConnection, timeout_s: float) -> Self:
        """Connect. Raises what the client library raises."""
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            # What a server refuses after the handshake, a certificate for one, shows in its first reply. It should not
            # be that to a command of which nobody would know then whether it was carried out.
            await connection.send_command("PING")
            await connection.read_response()
            stream: Any = connection._writer
            connection._reader = connection._writer = None  # it is ours now
            return cls(stream, timeout_s)
        except BaseException as error:
            await connection.disconnect(nowait=True)
            if isinstance(error, RuntimeError):  # uvloop's word for a connection that was reset meanwhile
                raise ConnectionError(f"the connection broke as it was made: {error}") from error
            raise

    async def exchange(self, command: bytes) -> Any:
        """Send a packed command; return the reply.

        Raises `ReplyError`, and `OSError` or `TimeoutError` where none came: the command may have been carried out.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        timer = self._loop.call_later(self._timeout_s, self._late)
        self._waiting.append((future, timer))
        self._transport.write(command)
        return await future

    def send(self, command: bytes) -> None:
        """Send a packed command whose reply nobody waits for."""
        self._waiting.append((_NOBODY, _UNTIMED))
        self._transport.write(command)

    async def exchange_all(self, commands: Sequence[bytes]) -> list[Any]:
        """Send packed commands in one piece; return for each its reply, or what `exchange` would raise."""
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        replies = _Replies(future, len(commands))
        self._waiting.extend([(replies, _UNTIMED)] * (len(commands) - 1))
        self._waiting.append((replies, self._loop.call_later(self._timeout_s, self._late)))
        self._transport.write(b"".join(commands))
        return await future

    def close(self, reason: BaseException | None = None) -> None:
        """Close the connection, and end what is in flight on it with `reason`."""
        if self.closed:
            return
        self.closed = True
        self._transport.abort()
        for future, timer in self._waiting:
            timer.cancel()
            if not future.done():
                future.set_exception(reason or ConnectionError("the connection was closed"))
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                self._reply(reply)
        except (hiredis.ProtocolError, IndexError) as error:
            self.close(ConnectionError(f"what came is no reply: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.close(exc or ConnectionError("Redis closed the connection"))

    def _reply(self, reply: Any) -> None:
        future, timer = self._waiting.popleft()
        timer.cancel()
        if future.done():
            return  # whoever asked has gone
        if isinstance(reply, ReplyError):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    def _late(self) -> None:
        self.close(TimeoutError(f"no reply within {self._timeout_s:g} s"))


class _Replies:
    """Collects the replies to several commands, or what came in their place, for one future."""

    def __init__(self, future: asyncio.Future[list[Any]], count: int) -> None:
        self._future = future
        self._missing = count
        self._replies: list[Any] = []

    def done(self) -> bool:
        return self._future.done()

    def set_result(self, result: Any, /) -> None:
        self._replies.append(result)
        self._missing -= 1
        if not self._missing:
            self._future.set_result(self._replies)

    set_exception = set_result


class _Nobody:
    """In the place of who waits for a reply."""

    def done(self) -> bool:
        return True

    def set_result(self, result: Any, /) -> None: ...

    def set_exception(self, exception: BaseException, /) -> None: ...


_NOBODY = _Nobody()


class _Untimed:
    """In the place of a timer: the last of several commands has one for all, and one that nobody waits for has none."""

    def cancel(self) -> None: ...


_UNTIMED = _Untimed()
