"""A TCP proxy that breaks what passes through it: the network between the service and Redis on a bad day."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit


class Proxy:
    """Stands before a server at `url`; `self.url` leads through it.

    `fate` sees each piece of a client's request and says what becomes of it: ``"pass"``, ``"lose the reply"`` (the
    server gets the request, the client a closed connection), ``"lose the request"`` (the server never sees it), or
    ``"hang"`` (neither hears of the other again). `meanwhile` happens between a lost reply and its discovery.
    """

    def __init__(self, url: str) -> None:
        target = urlsplit(url)
        assert target.hostname is not None
        assert target.port is not None
        self._target = (target.hostname, target.port)
        self.fate: Callable[[bytes], str] = lambda request: "pass"
        self.meanwhile: Callable[[], Awaitable[object]] | None = None
        self.broken = 0
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def once(self, marker: bytes, fate: str) -> None:
        """Let the next request that contains `marker` meet its fate, and all others pass."""

        def decide(request: bytes) -> str:
            if marker not in request:
                return "pass"
            self.fate = lambda request: "pass"
            return fate

        self.fate = decide

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await self._relay(reader, writer)
        finally:
            writer.close()
            with suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, downstream = await asyncio.open_connection(*self._target)
        replies = asyncio.create_task(self._copy(upstream, writer))
        try:
            while request := await reader.read(1 << 20):
                fate = self.fate(request)
                if fate == "pass":
                    downstream.write(request)
                    continue
                self.broken += 1
                replies.cancel()
                await asyncio.gather(replies, return_exceptions=True)
                if fate == "lose the reply":
                    downstream.write(request)
                    await upstream.read(1)  # the server has acted
                    if self.meanwhile is not None:
                        await self.meanwhile()
                if fate == "hang":
                    await asyncio.Event().wait()
                return
        finally:
            replies.cancel()
            downstream.close()
            with suppress(OSError):
                await downstream.wait_closed()

    async def _copy(self, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while reply := await upstream.read(1 << 20):
            writer.write(reply)
        writer.close()
