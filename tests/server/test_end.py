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
from pathlib import Path

import orjson
import pytest

from service import server
from service.app import create_app
from service.server import ENDS_WITHIN_S, QUIET_S, Config, Server, listen
from service.settings import Settings
from tests.api.plain_steps import plain_step
from tests.proxy import Proxy
from tests.security.certificates import Authority
from tests.servers import RedisServer

STEP = plain_step("a")
MODEL = orjson.dumps({"model": "hotspot"})
OPEN = b"\r\n".join(
    (
        b"PUT /v1/sessions/a HTTP/1.1",
        b"Host: h",
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(MODEL),
        b"",
        MODEL,
    )
)
REQUESTS = {
    "a plain step": STEP,
    "a step the usual way": STEP.replace(b"/steps HTTP", b"/steps? HTTP"),
    "no step": b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n",
}
LAST = b"\r\nconnection: close\r\n"
WHOLE = re.compile(rb"(?s)(HTTP/1.1 .*?\r\ncontent-length: (\d+).*?\r\n\r\n)(.*)")


class Client:
    """A connection that is made, and asks, whether the event loop runs or is held. It is closed with the `stack`."""

    def __init__(self, stack: ExitStack, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=5)
        stack.enter_context(self._socket)
        self._socket.setblocking(False)
        self._read = b""

    def send(self, content: bytes) -> None:
        assert self._socket.send(content) == len(content)

    async def answer(self, *, body: bool = False) -> bytes:
        """Return the next answer's head or body, or what came before the end. Raises ConnectionResetError."""
        while True:
            if (whole := WHOLE.fullmatch(self._read)) and len(whole[3]) >= (length := int(whole[2])):
                self._read = whole[3][length:]
                return whole[3][:length] if body else whole[1]
            more = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self._socket, 4096), 10)
            if not more:
                return self._read
            self._read += more

    async def asked(self, content: bytes, *, body: bool = False) -> bytes:
        self.send(content)
        return await self.answer(body=body)


@dataclass
class Ending:
    """A server that runs, with a session `a`, and how it ends."""

    server: Server
    listener: socket.socket
    clients: ExitStack
    ended: bool = False

    def client(self) -> Client:
        return Client(self.clients, self.listener.getsockname())

    async def end(self) -> None:
        self.ended = True
        await self.server.shutdown([self.listener])


@asynccontextmanager
async def served(**settings: object) -> AsyncIterator[Ending]:
    given = Settings.model_validate({"redis_url": "memory://", "model_trial_s": 0, **settings})
    config = Config(create_app(given), given)
    config.load()
    made = Server(config)
    made.lifespan = config.lifespan_class(config)
    with listen("127.0.0.1", 0) as listener, ExitStack() as clients:
        await made.startup([listener])
        await made.on_tick(0)
        ending = Ending(made, listener, clients)
        try:
            if not settings:
                assert (await ending.client().asked(OPEN)).startswith(b"HTTP/1.1 201")
            yield ending
        finally:
            if not ending.ended:
                await ending.end()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing but quiet end the last requests, on a machine that is held up for a while too."""
    monkeypatch.setattr(server, "LAST_REQUESTS_WITHIN_S", 20.0)
    monkeypatch.setattr(server, "ENDS_WITHIN_S", 20.0)


@pytest.mark.parametrize("what", REQUESTS)
async def test_who_has_connected_when_the_port_is_closed_is_answered(what: str) -> None:
    async with served() as ending:
        clients = [ending.client() for _ in range(20)]
        for client in clients:
            client.send(REQUESTS[what])
        address = ending.listener.getsockname()
        # The event loop has not run in between: the system alone knows of them.
        await ending.end()
        answers = [await client.answer() for client in clients]
        with pytest.raises(ConnectionRefusedError):
            Client(ending.clients, address)
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert LAST in answer


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("what", REQUESTS)
async def test_a_connection_that_is_kept_gets_one_more_answer_and_is_told_that_it_is_the_last(what: str) -> None:
    async with served() as ending:
        clients = [ending.client() for _ in range(4)]
        for client in clients:
            assert LAST not in await client.asked(REQUESTS[what])
        end = asyncio.create_task(ending.end())
        await asyncio.sleep(0.1)
        for client in clients:
            # One after the other, longer than all may be quiet: each that asks lets the others stay.
            await asyncio.sleep(0.3 * QUIET_S)
            assert LAST in await client.asked(REQUESTS[what])
            assert await client.answer() == b"", "it is closed behind its answer"
        await end


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("what", REQUESTS)
@pytest.mark.parametrize("at", [5, -5], ids=["in its head", "in its body"])
async def test_a_request_that_has_come_in_part_is_answered_and_is_the_last(what: str, at: int) -> None:
    async with served() as ending:
        client = ending.client()
        client.send(REQUESTS[what][:at])
        await asyncio.sleep(0.1)
        end = asyncio.create_task(ending.end())
        await asyncio.sleep(QUIET_S + 0.3)
        answer = await client.asked(REQUESTS[what][at:])
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert LAST in answer
        await end


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("what", ["a plain step", "a step the usual way"])
async def test_what_was_sent_behind_the_last_is_not_taken(what: str) -> None:
    async with served() as ending:
        client, other = ending.client(), ending.client()
        await client.asked(REQUESTS[what])
        await other.asked(REQUESTS["no step"])
        end = asyncio.create_task(ending.end())
        await asyncio.sleep(0.1)
        client.send(3 * REQUESTS[what])
        assert LAST in await client.answer()
        assert await client.answer() == b""
        assert b'"step":2,' in await other.asked(b"GET /v1/sessions/a HTTP/1.1\r\nHost: h\r\n\r\n", body=True)
        await end


@pytest.mark.usefixtures("patient")
async def test_who_asks_for_nothing_more_is_closed_when_all_is_quiet() -> None:
    async with served() as ending:
        clients = [ending.client(), ending.client()]
        await clients[0].asked(STEP)
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await ending.end()
        assert QUIET_S <= time.monotonic() - began < server.ENDS_WITHIN_S
        assert [await client.answer() for client in clients] == [b"", b""]


@pytest.mark.usefixtures("patient")
async def test_who_tells_it_twice_waits_for_nobody() -> None:
    async with served() as ending:
        client = ending.client()
        await client.asked(STEP)
        for _ in range(2):
            ending.server.handle_exit(15, None)
        began = time.monotonic()
        await ending.end()
        assert time.monotonic() - began < QUIET_S
        assert await client.answer() == b""


@pytest.mark.usefixtures("patient")
async def test_a_step_that_is_turned_away_is_the_last_too(redis: RedisServer) -> None:
    """The queue is full: one step is being written to a Redis that is held, and another waits for that."""
    async with (
        Proxy(redis.url) as proxy,
        served(redis_url=proxy.url, max_queue=1, store_timeout_s=60, step_timeout_s=60) as ending,
    ):
        late = ending.client()
        assert (await late.asked(OPEN)).startswith(b"HTTP/1.1 20")
        proxy.hold()
        held = [ending.client(), ending.client()]
        for client in held:
            client.send(STEP)
            await asyncio.sleep(0.1)
        refused = await ending.client().asked(STEP)
        assert refused.startswith(b"HTTP/1.1 429")
        assert LAST not in refused
        end = asyncio.create_task(ending.end())
        await asyncio.sleep(0.1)
        answer = await late.asked(STEP)
        assert answer.startswith(b"HTTP/1.1 429")
        assert LAST in answer
        assert await late.answer() == b""
        proxy.release()
        for client in held:
            answer = await client.answer()
            assert answer.startswith(b"HTTP/1.1 200")
            assert LAST in answer
        await end


async def test_who_never_says_hello_holds_nobody_up(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    async with served(tls_certificate=authority.issue("server", "127.0.0.1")) as ending:
        for _ in range(3):
            ending.client()
        began = time.monotonic()
        await ending.end()
        assert time.monotonic() - began < ENDS_WITHIN_S + 5, "a handshake may take a minute"
