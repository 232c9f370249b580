"""A TCP proxy that breaks what passes through it: the network between the service and Redis on a bad day."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Self
from urllib.parse import urlsplit

_WHOLE_S = 0.1
"""After so long without another byte a reply is taken for whole."""


@dataclass(frozen=True)
class Cut:
    """A fate: `after` bytes of the request, or of the reply to it, pass; then the connection breaks on both sides.

    It is closed in order, or with `reset` as by a machine that has lost its memory (RST).
    """

    side: Literal["request", "reply"]
    after: int
    reset: bool = False


Fate = str | Cut

_FATES: dict[str, Cut] = {"lose the request": Cut("request", 0), "lose the reply": Cut("reply", 0)}


class Proxy:
    """Stands before a server at `url`; `self.url` leads through it.

    `fate` sees each piece of a client's request and says what becomes of it: ``"pass"``, ``"lose the reply"`` (the
    server gets the request, the client a closed connection), ``"lose the request"`` (the server never sees it),
    ``"hang"`` (neither hears of the other again), or a `Cut`. `meanwhile` happens between a lost reply and its
    discovery.

    `delay` says how many seconds each piece takes on its way. `hold` lets nothing pass, and connections open, until
    `release`; `reset` breaks all connections. `length` is that of the last request or reply that was cut.
    """

    def __init__(self, url: str) -> None:
        target = urlsplit(url)
        assert target.hostname is not None
        assert target.port is not None
        self._target = (target.hostname, target.port)
        self.fate: Callable[[bytes], Fate] = lambda request: "pass"
        self.delay: Callable[[], float] = lambda: 0.0
        self.meanwhile: Callable[[], Awaitable[object]] | None = None
        self.broken = 0
        self.length = 0
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._sides: set[asyncio.StreamWriter] = set()
        self._passing = asyncio.Event()
        self._passing.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def once(self, marker: bytes, fate: Fate) -> None:
        """Let the next request that contains `marker` meet its fate, and all others pass."""

        def decide(request: bytes) -> Fate:
            if marker not in request:
                return "pass"
            self.fate = lambda request: "pass"
            return fate

        self.fate = decide

    def hold(self) -> None:
        self._passing.clear()

    def release(self) -> None:
        """Let pass what was held, to servers whose clients may have left since."""
        self._passing.set()

    def reset(self) -> None:
        for side in list(self._sides):
            _reset(side)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            with suppress(OSError):  # there is nobody behind, or a side has gone
                await self._relay(reader, writer)
        finally:
            await self._leave(writer)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, downstream = await asyncio.open_connection(*self._target)
        self._sides |= {writer, downstream}
        replies = asyncio.create_task(self._copy(upstream, writer))
        try:
            while request := await reader.read(1 << 20):
                fate = self.fate(request)
                if fate == "pass":
                    await self._pass(request, downstream)
                    continue
                self.broken += 1
                replies.cancel()
                await asyncio.gather(replies, return_exceptions=True)
                if fate == "hang":
                    await asyncio.Event().wait()
                await self._break(
                    _FATES[fate] if isinstance(fate, str) else fate, request, upstream, downstream, writer
                )
                return
        finally:
            replies.cancel()
            await self._leave(downstream)

    async def _break(
        self,
        cut: Cut,
        request: bytes,
        upstream: asyncio.StreamReader,
        downstream: asyncio.StreamWriter,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.length = len(request)
        downstream.write(request if cut.side == "reply" else request[: cut.after])
        if cut.side == "reply":
            reply = await upstream.read(1 << 20)  # the server has acted
            with suppress(TimeoutError):
                while len(reply) <= cut.after:
                    reply += await asyncio.wait_for(upstream.read(1 << 20), _WHOLE_S)
            self.length = len(reply)
            writer.write(reply[: cut.after])
            if self.meanwhile is not None:
                await self.meanwhile()
        if cut.reset:
            await asyncio.gather(writer.drain(), downstream.drain())
            _reset(writer)
            _reset(downstream)

    async def _copy(self, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while reply := await upstream.read(1 << 20):
                await self._pass(reply, writer)
        writer.close()

    async def _pass(self, piece: bytes, to: asyncio.StreamWriter) -> None:
        if delay := self.delay():
            await asyncio.sleep(delay)
        await self._passing.wait()
        to.write(piece)

    async def _leave(self, side: asyncio.StreamWriter) -> None:
        self._sides.discard(side)
        side.close()
        with suppress(OSError, asyncio.CancelledError):
            await side.wait_closed()


def _reset(side: asyncio.StreamWriter) -> None:
    connection: socket.socket | None = side.get_extra_info("socket")
    if connection is not None and not side.is_closing():
        # Nothing is left to linger for: closing sends a reset.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        side.transport.abort()
