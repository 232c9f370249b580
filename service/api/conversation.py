"""A WebSocket on which many messages are in flight and are answered in their order."""

import asyncio
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
    """

    def __init__(self, socket: Socket, services: Services, handle: Handler) -> None:
        self._socket = socket
        self._services = services
        self._handle = handle
        self._replies: asyncio.Queue[Replying | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(services.limits.max_in_flight)
        self._reader: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()

    @property
    def pipelined(self) -> bool:
        return not self._replies.empty()

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
        self._reader = asyncio.create_task(self._read())
        self._writer = writer = asyncio.create_task(self._write())
        self._services.sockets.add(self)
        try:
            if self._services.draining:
                self._reader.cancel()
            await asyncio.wait({self._reader, writer}, return_when=asyncio.FIRST_COMPLETED)
            if self._reader.cancelled():
                self._replies.put_nowait(None)
                await asyncio.wait({writer})
            for task in (self._reader, writer):
                if task.done() and not task.cancelled():
                    task.result()  # raises `Gone`, or a defect, which the server logs before it closes with 1011
        finally:
            self._services.sockets.discard(self)
            self._ended.set()
            self._reader.cancel()
            writer.cancel()
            await asyncio.gather(self._reader, writer, return_exceptions=True)
            while not self._replies.empty():
                if (unsent := self._replies.get_nowait()) is not None:
                    unsent.close()

    async def _read(self) -> None:
        while True:
            await self._room.acquire()
            self._replies.put_nowait(self._handle(await self._socket.receive()))

    async def _write(self) -> None:
        while (reply := await self._replies.get()) is not None:
            message, close = await reply
            await self._socket.send(message)
            if close is not None:
                await self._socket.close(close)
                return
            self._room.release()
        await self._socket.close(GOING_AWAY, "the service is going away")
