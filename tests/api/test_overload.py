"""A process that is sent more than it can do: refused at once, in the wire's words, on every way in."""

import asyncio
import uuid
from collections.abc import Iterator
from typing import Self

import httpx
import orjson
import pytest
from websockets.asyncio.client import connect
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_and_wait

from tests.api.plain_steps import answer_of, answers_of_one_connection, plain_step
from tests.proxy import Proxy
from tests.servers import ConveyorServer, RedisServer
from tests.streaming_client import open_session, reading

SENT = 300


@pytest.fixture(scope="module")
def busy(redis: RedisServer) -> Iterator[ConveyorServer]:
    """A service in which one step may wait, and no other beside it."""
    with ConveyorServer(redis_url=redis.url, max_queue=1) as server:
        yield server


async def opened(server: ConveyorServer, count: int) -> list[str]:
    names = [f"busy-{uuid.uuid4()}" for _ in range(count)]
    await asyncio.gather(*(open_session(server.url, name) for name in names))
    return names


@pytest.mark.parametrize("headers", [{}, {"origin": "http://127.0.0.1"}], ids=["the short way", "the usual way"])
async def test_over_http_it_is_a_429_that_says_when_to_come_back(busy: ConveyorServer, headers: dict[str, str]) -> None:
    names = await opened(busy, 32)
    async with httpx.AsyncClient(base_url=busy.url, timeout=30, headers=headers) as http:
        posts = [http.post(f"/v1/sessions/{names[i % 32]}/steps", json={"x": reading(0, i)}) for i in range(SENT)]
        answers = await asyncio.gather(*posts)
        refused = [answer for answer in answers if answer.status_code == 429]
        assert {answer.status_code for answer in answers} == {200, 429}
        for answer in refused:
            assert answer.headers["content-type"] == "application/problem+json"
            assert int(answer.headers["retry-after"]) >= 1
            problem = answer.json()
            assert (problem["code"], problem["status"]) == ("overloaded", 429)
            assert problem["retry_after_s"] > 0
        # What was refused has advanced nothing, and the connections go on.
        states = await asyncio.gather(*(http.get(f"/v1/sessions/{name}") for name in names))
        assert sum(state.json()["step"] for state in states) == SENT - len(refused)


class Crowd:
    """Clients that keep a service's queue full, by many steps of few sessions in each request."""

    def __init__(self, server: ConveyorServer, names: list[str], headers: dict[str, str] | None = None) -> None:
        self._http = httpx.AsyncClient(base_url=server.url, timeout=30, headers=headers)
        self._steps = {"steps": [{"session_id": name, "x": reading(0, 0)} for name in names for _ in range(20)]}
        self._clients: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._clients = [asyncio.create_task(self._send()) for _ in range(4)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        await self._http.aclose()

    async def _send(self) -> None:
        while True:
            await self._http.post("/v1/steps", json=self._steps)


async def test_what_comes_behind_a_step_that_waits_is_answered_in_its_order(busy: ConveyorServer) -> None:
    (name,) = names = await opened(busy, 1)
    step, other = plain_step(name), f"GET /v1/sessions/{name} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    async with Crowd(busy, names):
        reader, writer = await asyncio.open_connection("127.0.0.1", busy.port)
        bodies = []
        async with asyncio.timeout(60):
            for _ in range(50):
                for part in (step, other[:20], other[20:]):
                    writer.write(part)
                    await asyncio.sleep(0.002)  # to be read apart
                for _ in range(2):
                    _, body = await answer_of(reader)
                    bodies.append(orjson.loads(body))
        writer.close()
    assert all("outputs" in body or body["code"] == "overloaded" for body in bodies[::2])
    assert all("expires_at" in body for body in bodies[1::2])


async def test_clients_that_leave_while_their_requests_wait_leave_nothing_behind(busy: ConveyorServer) -> None:
    (name,) = names = await opened(busy, 1)
    async with Crowd(busy, names):
        for attempt in range(20):
            ends = [await asyncio.open_connection("127.0.0.1", busy.port) for _ in range(20)]
            for _, writer in ends:
                writer.write(plain_step(name) * (1 + attempt % 2))
            await asyncio.sleep(0.005)
            if attempt % 4 < 2:
                for _, writer in ends:
                    writer.transport.abort()
            else:
                for reader, writer in ends:
                    writer.write_eof()
                    await asyncio.wait_for(reader.read(), 30)
                    writer.close()
        answers = await answers_of_one_connection(busy, plain_step(name), 20)
    assert {status.split()[1] for status, _ in answers} <= {b"200", b"429"}
    assert "Traceback" not in busy.output()


async def test_a_socket_of_many_sessions_is_read_when_there_is_room(busy: ConveyorServer) -> None:
    names = await opened(busy, 32)
    async with connect(f"{busy.ws_url}/v1/stream") as socket:
        for i in range(SENT):
            await socket.send(orjson.dumps({"session_id": names[i % 32], "x": reading(0, i)}))
        answers = [orjson.loads(await socket.recv()) for _ in range(SENT)]
    assert [(answer["session_id"], answer["step"]) for answer in answers] == [
        (names[i % 32], i // 32 + 1) for i in range(SENT)
    ]


async def test_of_an_array_beyond_the_queue_the_rest_is_refused_in_its_place(busy: ConveyorServer) -> None:
    names = await opened(busy, 32)
    async with connect(f"{busy.ws_url}/v1/stream") as socket:
        await socket.send(orjson.dumps([{"session_id": name, "x": reading(0, 0)} for name in names]))
        first, *others = orjson.loads(await socket.recv())
        assert (first["session_id"], first["step"]) == (names[0], 1)
        assert [answer["session_id"] for answer in others] == names[1:]
        assert {answer["error"]["code"] for answer in others} == {"overloaded"}
        assert all(answer["error"]["retry_after_s"] > 0 for answer in others)
        await socket.send(orjson.dumps({"session_id": names[1], "x": reading(0, 0)}))
        assert orjson.loads(await socket.recv())["step"] == 1, "when there is room again, it goes on"


async def test_refusals_are_counted(busy: ConveyorServer) -> None:
    async with httpx.AsyncClient(base_url=busy.url, timeout=30) as http:
        text = (await http.get("/metrics")).text
    assert 'conveyor_refusals_total{code="overloaded"}' in text


async def test_a_socket_of_one_session_is_read_when_there_is_room(busy: ConveyorServer) -> None:
    """Whoever sends many steps at once, to catch up, has them all applied, in their order."""

    async def stream(name: str) -> list[int]:
        async with connect(f"{busy.ws_url}/v1/sessions/{name}/stream") as socket:
            await socket.recv()
            for i in range(SENT):
                await socket.send(orjson.dumps({"x": reading(0, i)}))
            return [orjson.loads(await socket.recv())["step"] for _ in range(SENT)]

    steps = await asyncio.gather(*map(stream, await opened(busy, 5)))
    assert steps == [list(range(1, SENT + 1))] * 5


async def test_a_client_that_leaves_while_it_waits_for_room_leaves_nothing_behind(busy: ConveyorServer) -> None:
    for name in await opened(busy, 10):
        async with connect(f"{busy.ws_url}/v1/sessions/{name}/stream", close_timeout=0.2) as socket:
            await socket.recv()
            for i in range(SENT):
                await socket.send(orjson.dumps({"x": reading(0, i)}))
    (name,) = await opened(busy, 1)
    async with httpx.AsyncClient(base_url=busy.url, timeout=30) as http:
        assert (await http.post(f"/v1/sessions/{name}/steps", json={"x": reading(0, 0)})).json()["step"] == 1
    assert "Traceback" not in busy.output()


async def test_what_came_before_the_session_was_there_waits_for_room(redis: RedisServer) -> None:
    """A client that sends before it has been greeted is read message by message, however many there are by then."""
    async with Proxy(redis.url) as proxy:
        server = ConveyorServer(redis_url=proxy.url, max_queue=1)
        await asyncio.to_thread(server.start)
        try:
            names = await opened(server, 3)
            proxy.delay = lambda: 0.1
            await asyncio.gather(*(asyncio.to_thread(early, server, name, 8) for name in names))
        finally:
            await asyncio.to_thread(server.close)


def early(server: ConveyorServer, name: str, count: int) -> None:
    """Send steps before the session's greeting, which takes a while; expect an answer to each, in their order."""
    with connect_in_thread(server, name) as socket:
        for i in range(count):
            socket.send(orjson.dumps({"x": reading(0, i), "step": i + 1}))
        answers = [orjson.loads(socket.recv(20)) for _ in range(count + 1)]
    assert [answer.get("step") for answer in answers] == list(range(count + 1))


def connect_in_thread(server: ConveyorServer, name: str) -> ClientConnection:
    return connect_and_wait(f"{server.ws_url}/v1/sessions/{name}/stream")
