"""A WebSocket on which many messages are in flight and are answered in their order."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from service.api.dependencies import Services
from service.api.socket import Socket

GOING_AWAY = 1012
"""Close code of a service that is being stopped: connect again, go on where the last answer left off."""


class Reply(NamedTuple):
    """A message for the client, and the code to close the socket with after it, if that is to be."""

    message: dict[str, Any] | list[Any]
    close: int | None = None


Replying = Coroutine[Any, Any, Reply]
Handler = Callable[[bytes | str], Replying]
"""Begins the work that a message asks for *at once*, in the order of the calls; what it returns is awaited later."""


class Conversation:
    """Reads messages and answers them in order, at most `max_in_flight` of them at a time.

    With that many unanswered it reads no further: the rest waits in the connection, and so does a client that does not
    read its answers. `pipelined` says whether more messages are in flight behind the one being answered.

    A reader and a writer share `_replies`, of which the first is being sent. Whoever has nothing to do leaves a future
    that the other resolves; a queue and a semaphore of asyncio's would say the same, at several times the cost to each
    message.
    """

    def __init__(self, socket: Socket, services: Services, handle: Handler) -> None:
        self._socket = socket
        self._services = services
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        self._replies: deque[Replying] = deque()
        self._work: asyncio.Future[None] | None = None  # the writer waits for a reply to send
        self._room: asyncio.Future[None] | None = None  # the reader waits for one to be sent
        self._stopping = False
        self._reader: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()

    @property
    def pipelined(self) -> bool:
        return len(self._replies) > 1

    async def stop(self) -> None:
        """Read nothing more, answer what was read, close: the service is going away. Returns when that is done."""
        if self._reader is not None:
            self._reader.cancel()
        await self._ended.wait()

    def abort(self) -> None:
        """Stop in the middle of whatever it is: for a client that does not read its answers."""
        if self._writer is not None:
            self._writer.cancel()

    async def run(self) -> None:
        """Converse until an answer closes the socket or `stop` is called. Raises `Gone` where the client leaves."""
        self._reader = reader = self._loop.create_task(self._read())
        self._writer = writer = self._loop.create_task(self._write())
        self._services.sockets.add(self)
        try:
            if self._services.draining:
                reader.cancel()
            await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
            if reader.cancelled():
                self._stopping = True
                _resolve(self._work)
                await asyncio.wait({writer})
            for task in (reader, writer):
                if task.done() and not task.cancelled():
                    task.result()  # raises `Gone`, or a defect, which the server logs before it closes with 1011
        finally:
            self._services.sockets.discard(self)
            self._ended.set()
            reader.cancel()
            writer.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)
            for unsent in self._replies:
                unsent.close()

    async def _read(self) -> None:
        limit = self._services.limits.max_in_flight
        while True:
            if len(self._replies) >= limit:
                self._room = self._loop.create_future()
                await self._room
            self._replies.append(self._handle(await self._socket.receive()))
            _resolve(self._work)

    async def _write(self) -> None:
        while True:
            while self._replies:
                message, close = await self._replies[0]
                await self._socket.send(message)
                if close is not None:
                    await self._socket.close(close)
                    return
                del self._replies[0]
                _resolve(self._room)
            if self._stopping:
                await self._socket.close(GOING_AWAY, "the service is going away")
                return
            self._work = self._loop.create_future()
            await self._work


def _resolve(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
