"""The end of the server: who has connected is let in, and who keeps a connection is not cut off with a request.

Server and clients share one event loop, which is held where the order of things matters.
"""

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from service.app import create_app
from service.server import LAST_REQUESTS_S, QUIET_S, Config, Server, listen
from service.settings import Settings

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
LAST = b"\r\nconnection: close\r\n"


@dataclass
class Ending:
    """A server that runs, where it is, and how it ends."""

    server: Server
    listener: socket.socket
    address: tuple[str, int]
    clients: ExitStack

    def client(self) -> "Client":
        return Client(self.clients, self.address)

    async def end(self) -> None:
        await self.server.shutdown([self.listener])


@asynccontextmanager
async def served() -> AsyncIterator[Ending]:
    settings = Settings(redis_url="memory://")
    config = Config(create_app(settings), settings)
    config.load()
    server = Server(config)
    server.lifespan = config.lifespan_class(config)
    with listen("127.0.0.1", 0) as listener, ExitStack() as clients:
        await server.startup([listener])
        await server.on_tick(0)
        yield Ending(server, listener, listener.getsockname(), clients)


class Client:
    """A connection that is made, and asks, whether the event loop runs or is held. It is closed with the `stack`."""

    def __init__(self, stack: ExitStack, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=5)
        stack.enter_context(self._socket)
        self._socket.setblocking(False)

    def ask(self) -> None:
        assert self._socket.send(REQUEST) == len(REQUEST)

    async def answer(self) -> bytes:
        """Return the head of the next answer, or what came before the end. Raises ConnectionResetError."""
        content = b""
        loop = asyncio.get_running_loop()
        while not (whole := re.fullmatch(rb"(?s)(.*?\r\ncontent-length: (\d+).*?\r\n\r\n)(.*)", content)) or len(
            whole[3]
        ) < int(whole[2]):
            if not (more := await asyncio.wait_for(loop.sock_recv(self._socket, 4096), 10)):
                return content
            content += more
        return whole[1]

    async def asked(self) -> bytes:
        self.ask()
        return await self.answer()


async def test_who_has_connected_when_the_port_is_closed_is_answered() -> None:
    async with served() as ending:
        clients = [ending.client() for _ in range(20)]
        for client in clients:
            client.ask()
        # The event loop has not run in between: the system alone knows of them.
        await ending.end()
        answers = [await client.answer() for client in clients]
        with pytest.raises(ConnectionRefusedError):
            ending.client()
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert LAST in answer


async def test_a_connection_that_is_kept_gets_one_more_answer_and_is_told_that_it_is_the_last() -> None:
    async with served() as ending:
        clients = [ending.client() for _ in range(4)]
        for client in clients:
            assert LAST not in await client.asked()
        end = asyncio.create_task(ending.end())
        await asyncio.sleep(0.1)
        for client in clients:
            # One after the other, longer than all may be quiet: each that asks lets the others stay.
            await asyncio.sleep(0.3 * QUIET_S)
            assert LAST in await client.asked()
            assert await client.answer() == b"", "it is closed behind its answer"
        began = time.monotonic()
        await end
        assert time.monotonic() - began < QUIET_S, "nobody is left to wait for"


async def test_who_asks_for_nothing_more_is_closed_when_all_is_quiet() -> None:
    async with served() as ending:
        clients = [ending.client(), ending.client()]
        await clients[0].asked()
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await ending.end()
        assert QUIET_S <= time.monotonic() - began < LAST_REQUESTS_S
        assert [await client.answer() for client in clients] == [b"", b""]
