"""Clients that resume over WebSockets: one session with several steps in flight, or many sessions on one socket."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import chain
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.chaos.checker import TIMEOUT
from tests.chaos.cursor import MODEL, Cursor, Message
from tests.chaos.http_clients import PAUSE_S, HttpClient


class Cut(Exception):
    """The connection is of no more use; the argument says in a word why."""


class SocketClient:
    """Streams one session over its own socket, with up to `window` steps in flight."""

    def __init__(self, url: str, cursor: Cursor, *, deadline_s: float, pace_s: float, window: int = 1) -> None:
        self.cursors = [cursor]
        self._cursor = cursor
        self._url = f"{url}/v1/sessions/{cursor.session}/stream?model={MODEL}".replace("http", "ws", 1)
        self._deadline_s = deadline_s
        self._pace_s = pace_s
        self._window = window
        self._in_flight: deque[int] = deque()
        """The calls that are not answered yet."""

    async def run(self) -> None:
        """Stream until the session has reached its goal: on every cut connect again, read its step, and go on."""
        while not self._cursor.done:
            self._in_flight.append(self._cursor.open())
            try:
                async with open_socket(self._url, self._deadline_s) as socket:
                    await self._greeted(socket)
                    await self._stream(socket)
            except Cut as cut:
                for call in self._in_flight:
                    self._cursor.broken(call, str(cut))
                self._in_flight.clear()
                await asyncio.sleep(PAUSE_S)

    async def _greeted(self, socket: ClientConnection) -> None:
        """Read where the session is. Raises `Cut`, also where it cannot be opened."""
        greeting = await receive(socket, self._deadline_s)
        call = self._in_flight.popleft()
        if "error" not in greeting:
            self._cursor.opened(call, greeting["step"])
            return
        self._cursor.refused(call, greeting["error"])
        raise Cut("refused")

    async def _stream(self, socket: ClientConnection) -> None:
        ahead = self._cursor.next
        well = True
        while not self._cursor.done or self._in_flight:
            while well and len(self._in_flight) < self._window and not self._cursor.beyond(ahead):
                self._in_flight.append(self._cursor.send(ahead))
                message = self._cursor.message(ahead)
                del message["session_id"]
                await send(socket, message, self._deadline_s)
                ahead += 1
            answer = await receive(socket, self._deadline_s)
            well = self._cursor.take(self._in_flight.popleft(), answer) and well
            await asyncio.sleep(self._pace_s)
            if not well and not self._in_flight:
                # What was behind the refused step has been refused with it: go on from where the session is.
                await asyncio.sleep(PAUSE_S)
                ahead, well = self._cursor.next, True


class GatewayClient:
    """Streams many sessions over one socket, an array of one step of each, with up to `window` arrays in flight.

    Opens them over HTTP.
    """

    def __init__(
        self, url: str, cursors: Sequence[Cursor], *, deadline_s: float, pace_s: float, window: int = 1
    ) -> None:
        self.cursors = cursors
        self._url = f"{url}/v1/stream".replace("http", "ws", 1)
        self._deadline_s = deadline_s
        self._pace_s = pace_s
        self._window = window
        self._opener = HttpClient(url, cursors, deadline_s=deadline_s, pace_s=pace_s)
        self._in_flight: deque[list[tuple[Cursor, int]]] = deque()
        """The calls of the arrays that are not answered yet."""

    async def run(self) -> None:
        """Stream until every session has reached its goal. Such a socket has no greeting: where a session is, its
        opening tells after every cut."""
        try:
            while not all(cursor.done for cursor in self.cursors):
                await self._converse()
        finally:
            await self._opener.close()

    async def _converse(self) -> None:
        for cursor in self.cursors:
            cursor.lost = True
        await self._opener.open_lost()
        try:
            async with open_socket(self._url, self._deadline_s) as socket:
                more = True
                while more and not any(cursor.lost for cursor in self.cursors):
                    more = await self._stream(socket)
        except Cut as cut:
            for cursor, call in chain.from_iterable(self._in_flight):
                cursor.broken(call, str(cut))
            self._in_flight.clear()
            await asyncio.sleep(PAUSE_S)

    async def _stream(self, socket: ClientConnection) -> bool:
        """Stream until a step is refused, and all before it is answered. Returns False where nothing is left to do."""
        ahead = {cursor.session: cursor.next for cursor in self.cursors}
        well = True
        while True:
            while well and len(self._in_flight) < self._window:
                going = [cursor for cursor in self.cursors if not cursor.beyond(ahead[cursor.session])]
                if not going:
                    break
                self._in_flight.append([(cursor, cursor.send(ahead[cursor.session])) for cursor in going])
                await send(socket, [cursor.message(ahead[cursor.session]) for cursor in going], self._deadline_s)
                for cursor in going:
                    ahead[cursor.session] += 1
            if not self._in_flight:
                break
            answers: Any = await receive(socket, self._deadline_s)
            calls = self._in_flight.popleft()
            if isinstance(answers, dict):  # the message as a whole was refused
                answers = [answers] * len(calls)
            taken = [cursor.take(call, answer) for (cursor, call), answer in zip(calls, answers, strict=True)]
            well = all(taken) and well
            await asyncio.sleep(self._pace_s)
        if not well:
            await asyncio.sleep(PAUSE_S)
        return not well


@contextmanager
def _cuts() -> Iterator[None]:
    """Name the ways in which a connection ends. Raises `Cut`."""
    try:
        yield
    except TimeoutError:
        raise Cut(TIMEOUT) from None
    except ConnectionClosed as error:
        raise Cut(f"closed_{error.rcvd.code if error.rcvd else 1006}") from None
    except ConnectionRefusedError:
        raise Cut("refused") from None
    except InvalidHandshake as error:
        response = getattr(error, "response", None)
        raise Cut(f"http_{response.status_code}" if response else "connection_lost") from None
    except (OSError, EOFError):
        raise Cut("connection_lost") from None


@asynccontextmanager
async def open_socket(url: str, deadline_s: float) -> AsyncIterator[ClientConnection]:
    """A connection that is left without waiting long for the other side's consent. Raises `Cut`."""
    with _cuts():
        async with asyncio.timeout(deadline_s):
            socket = await connect(url, open_timeout=None, close_timeout=0.2, ping_interval=None)
    try:
        yield socket
    finally:
        await socket.close()


async def send(socket: ClientConnection, message: Message | list[Message], deadline_s: float) -> None:
    with _cuts():
        async with asyncio.timeout(deadline_s):
            await socket.send(orjson.dumps(message).decode())


async def receive(socket: ClientConnection, deadline_s: float) -> Message:
    with _cuts():
        async with asyncio.timeout(deadline_s):
            received: Message = orjson.loads(await socket.recv())
    return received
