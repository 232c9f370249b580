"""A process that is sent more than it can do: refused at once, in the wire's words, on every way in."""

import asyncio
import contextlib
import uuid
from collections.abc import Iterator

import httpx
import orjson
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from service.http import is_plain_step
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


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer me"}], ids=["the short way", "the usual way"])
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


async def test_on_a_socket_of_many_sessions_each_step_is_answered_in_its_place(busy: ConveyorServer) -> None:
    names = await opened(busy, 32)
    async with connect(f"{busy.ws_url}/v1/stream") as socket:
        for i in range(SENT):
            await socket.send(orjson.dumps({"session_id": names[i % 32], "x": reading(0, i)}))
        answers = [orjson.loads(await socket.recv()) for _ in range(SENT)]
        assert [answer["session_id"] for answer in answers] == [names[i % 32] for i in range(SENT)]
        refused = [answer["error"] for answer in answers if "error" in answer]
        assert {error["code"] for error in refused} == {"overloaded"}
        assert all(error["retry_after_s"] > 0 for error in refused)
        assert 0 < len(refused) < SENT
        await socket.send(orjson.dumps({"session_id": names[0], "x": reading(0, 0)}))
        assert "outputs" in orjson.loads(await socket.recv()), "when there is room again, it goes on"


async def test_refusals_are_counted(busy: ConveyorServer) -> None:
    async with httpx.AsyncClient(base_url=busy.url, timeout=30) as http:
        text = (await http.get("/metrics")).text
    assert 'conveyor_refusals_total{code="overloaded"}' in text


PLAIN = b'POST /v1/sessions/a/steps HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n{"x":[1]}'


def test_a_plain_step_is_known_by_its_bytes() -> None:
    assert is_plain_step(PLAIN)


@pytest.mark.parametrize(
    ("what", "by"),
    [
        (b"POST", b"GET"),
        (b"/steps", b"/reset"),
        (b"/steps", b"/steps?a=1"),
        (b"Host", b"Authorization"),
        (b"Host: h", b"Connection: close"),
        (b"Host: h", b"Transfer-Encoding: chunked"),
        (b"Host: h", b"Expect: 100-continue"),
        (b"Content-Length: 9", b"Content-Length: 8"),
        (b"Content-Length: 9", b"Content-Length: 10"),
        (b"Content-Length: 9", b"Content-Length: 9\r\ncontent-length: 9"),
        (b"Content-Length: 9", b"X: y"),
        (b"\r\n\r\n", b"\r\n"),
        (b"Host: h", b"Host: h\nTransfer-Encoding: chunked"),
    ],
)
def test_what_is_more_or_less_is_read_by_the_library(what: bytes, by: bytes) -> None:
    changed = PLAIN.replace(what, by, 1)
    assert changed != PLAIN
    assert not is_plain_step(changed)


def test_two_requests_in_one_piece_are_read_by_the_library() -> None:
    assert not is_plain_step(PLAIN + PLAIN)


async def test_on_a_socket_of_one_session_nothing_is_applied_behind_what_was_refused(busy: ConveyorServer) -> None:
    """Else the session would count a step that its client never sent there: what it counts, it has consumed."""
    closed = 0
    for name in await opened(busy, 10):
        answered = 0
        async with connect(f"{busy.ws_url}/v1/sessions/{name}/stream") as socket:
            await socket.recv()
            with contextlib.suppress(ConnectionClosed):
                for i in range(SENT):
                    await socket.send(orjson.dumps({"x": reading(0, i)}))
                    await asyncio.sleep(0)
            with contextlib.suppress(ConnectionClosed):
                for _ in range(SENT):
                    answered += "outputs" in orjson.loads(await socket.recv())
            closed += socket.close_code == 4429
        async with httpx.AsyncClient(base_url=busy.url, timeout=30) as http:
            assert (await http.get(f"/v1/sessions/{name}")).json()["step"] == answered
    assert closed, "nothing was refused with more behind it"
