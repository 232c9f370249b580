"""Clients that leave in the middle, vanish, never read, never stop, or are two: nobody else notices.

After each of them a neighbour gets the bits of a session that was never disturbed.
"""

import asyncio
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import httpx
import psutil
import pytest
from websockets.asyncio.client import connect as connect_async

from tests.api.wire import readings, step, step_count, stream
from tests.servers import ConveyorServer, RedisServer, redis_command, wait_until
from tests.test_websocket import TEXT, RawClient, frame

TINY_FRAMES = int(os.environ.get("CONVEYOR_TEST_TINY_FRAMES", "200000"))
"""More when the environment says so."""

MEBIBYTE = 2**20
GROWTH_BYTES = 64 * MEBIBYTE
"""More memory than this nobody may make the service keep. Buffers, and an allocator that returns nothing, need some."""


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def service(redis: RedisServer) -> Iterator[ConveyorServer]:
    """What it does with clients that misbehave, not with more work than it can do: of that it has enough patience."""
    with ConveyorServer(redis_url=redis.url, max_wait_s=10) as server:
        yield server
        assert "Traceback" not in server.output()


@pytest.fixture(scope="module")
def client(service: ConveyorServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=30) as client:
        yield client


@pytest.fixture
def neighbour(service: ConveyorServer, client: httpx.Client) -> Iterator[None]:
    """After the test, a session that was open all the while answers as one that is opened now."""
    client.delete("/v1/sessions/neighbour")
    client.put("/v1/sessions/neighbour", json={"model": "hotspot"})
    rows = readings(6, seed=5)
    with stream(service, "neighbour") as socket:
        socket.receive()
        before = [socket.ask({"x": row})["outputs"] for row in rows[:3]]
        yield
        after = [socket.ask({"x": row})["outputs"] for row in rows[3:]]
    client.delete("/v1/sessions/neighbour")
    client.put("/v1/sessions/neighbour", json={"model": "hotspot"})
    assert before + after == [step(client, "neighbour", row)["outputs"] for row in rows]


def memory(service: ConveyorServer) -> int:
    return int(psutil.Process(service.pid).memory_info().rss)


def connections(service: ConveyorServer) -> int:
    """The service's own ends of connections to its port, those of clients that are gone among them."""
    own = psutil.Process(service.pid).net_connections("tcp")
    return sum(found.laddr.port == service.port and found.status != psutil.CONN_LISTEN for found in own)


def reset(connection: socket.socket) -> None:
    """Close without a goodbye: with an RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def fresh(client: httpx.Client, name: str) -> str:
    client.delete(f"/v1/sessions/{name}")
    assert client.put(f"/v1/sessions/{name}", json={"model": "hotspot"}).status_code == 201
    return name


@pytest.mark.parametrize("goodbye", ["fin", "rst"])
def test_a_frame_that_ends_anywhere_is_no_step(
    service: ConveyorServer, client: httpx.Client, neighbour: None, goodbye: str
) -> None:
    """One whole frame and a part of the next: the first is applied, the second is not, whatever the part."""
    name, rows = fresh(client, "torn"), readings(64)
    open_before = connections(service)
    length = len(frame(TEXT, json.dumps({"x": rows[0], "step": 10}).encode()))
    cuts = sorted({*range(8), *range(8, length, 7), length - 1})
    for number, cut in enumerate(cuts, start=1):
        whole = frame(TEXT, json.dumps({"x": rows[number], "step": number}).encode())
        torn = frame(TEXT, json.dumps({"x": rows[number + 1], "step": number + 1}).encode())
        raw = RawClient(service, f"/v1/sessions/{name}/stream")
        assert raw.receive()["step"] == number - 1, "the torn frame before was no step"
        raw.send(whole + torn[: min(cut, len(torn) - 1)])
        assert raw.receive()["step"] == number
        reset(raw.socket) if goodbye == "rst" else raw.socket.close()
    assert step_count(client, name) == len(cuts)
    assert wait_until(lambda: connections(service) <= open_before, 20), "their sockets are closed"


def test_a_request_that_ends_anywhere_is_no_step(
    service: ConveyorServer, client: httpx.Client, neighbour: None
) -> None:
    name = fresh(client, "torn-request")
    body = json.dumps({"x": readings(1)[0], "step": 1}).encode()
    head = f"POST /v1/sessions/{name}/steps HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    request = head + body
    for cut in [*range(0, len(request), 9), len(request) - 1]:
        with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
            connection.sendall(request[:cut])
            if cut % 2:
                reset(connection)
    assert step_count(client, name) == 0
    assert step(client, name, readings(1)[0], step=1)["replayed"] is False


async def test_a_client_that_leaves_while_its_step_is_written_can_ask_what_became_of_it(
    redis: RedisServer, service: ConveyorServer, client: httpx.Client
) -> None:
    """Redis takes the write late, or after the service has given up: applied or not, the number tells, and once."""
    rows = readings(12, seed=3)
    name, alone = fresh(client, "leaving"), fresh(client, "staying")
    expected = [step(client, alone, row)["outputs"] for row in rows]
    for number, row in enumerate(rows, start=1):
        message = {"x": row, "step": number}
        paused_ms = 150 if number % 4 else 2600  # beyond the 2 s that the service waits for Redis
        redis_command(redis.url, "CLIENT", "PAUSE", str(paused_ms), "WRITE")
        if number % 2:
            async with httpx.AsyncClient(base_url=service.url) as leaving:
                with suppress(httpx.ReadTimeout):
                    await leaving.post(f"/v1/sessions/{name}/steps", json=message, timeout=0.05)
        else:
            raw = await asyncio.to_thread(RawClient, service, f"/v1/sessions/{name}/stream")
            assert raw.receive()["step"] == number - 1
            raw.send(frame(TEXT, json.dumps(message).encode()))
            await asyncio.sleep(0.05)
            reset(raw.socket)
        answer = await _told(client, name, message)
        assert (answer["step"], answer["outputs"]) == (number, expected[number - 1])
    assert step_count(client, name) == len(rows)


async def _told(client: httpx.Client, name: str, message: dict[str, Any]) -> dict[str, Any]:
    """Send a numbered step until it is answered."""
    for _ in range(40):
        response = await asyncio.to_thread(client.post, f"/v1/sessions/{name}/steps", json=message)
        if response.status_code == 200:
            return dict(response.json())
        assert response.status_code == 503, response.text
        await asyncio.sleep(0.1)
    raise AssertionError("it was never answered")


def test_a_client_that_never_reads_costs_bounded_memory(
    service: ConveyorServer, client: httpx.Client, neighbour: None
) -> None:
    """It asks without end and reads no answer, until the service does not read it either."""
    name = fresh(client, "deaf")
    chunk = frame(TEXT, json.dumps({"x": readings(64), "outputs": "all"}).encode())
    before = memory(service)
    deaf = [RawClient(service, f"/v1/sessions/{name}/stream") for _ in range(4)]
    for raw in deaf:
        raw.socket.settimeout(1)
        with pytest.raises(TimeoutError):
            raw.send(chunk * (128 * MEBIBYTE // len(chunk)))  # more than any buffer of the system
    assert memory(service) - before < GROWTH_BYTES
    with stream(service, fresh(client, "beside")) as beside:
        beside.receive()
        answers = [beside.ask({"x": row}) for row in readings(50)]
    assert [answer["step"] for answer in answers] == list(range(1, 51))
    open_before = connections(service)
    for raw in deaf:
        reset(raw.socket)
    assert wait_until(lambda: connections(service) <= open_before - len(deaf), 20)


def test_a_storm_of_tiny_frames_leaves_memory_flat_and_the_neighbour_served(
    service: ConveyorServer, client: httpx.Client, neighbour: None
) -> None:
    """Each is refused, and answered; meanwhile a neighbour's steps go on."""
    raw = RawClient(service, f"/v1/sessions/{fresh(client, 'storm')}/stream")
    raw.receive()
    tiny = frame(TEXT, b"1") * 1000
    received = [0]

    def read() -> None:
        while data := raw.socket.recv(2**20):
            received[0] += data.count(b'"invalid_request"')
            if received[0] >= TINY_FRAMES:
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    with stream(service, fresh(client, "served")) as served:
        served.receive()
        first: int | None = None
        for sent in range(0, TINY_FRAMES, len(tiny) // 7):
            raw.send(tiny)
            if sent % 20_000 == 0:
                assert "outputs" in served.ask({"x": readings(1)[0]})
                first = first or memory(service)
        reader.join(150)
    with closing(raw.socket):
        assert received[0] >= TINY_FRAMES, "every frame was answered"
    assert first is not None
    assert memory(service) - first < GROWTH_BYTES


async def test_two_clients_on_one_session_apply_each_numbered_step_once(
    service: ConveyorServer, client: httpx.Client
) -> None:
    """One by REST, one by WebSocket, the same numbered steps: who loses gets the winner's answer, or is told."""
    rows = readings(80, seed=7)
    name, alone = fresh(client, "shared"), fresh(client, "unshared")
    expected = [step(client, alone, row)["outputs"] for row in rows]
    applied: list[int] = []

    def check(number: int, answer: dict[str, Any]) -> None:
        if "outputs" in answer:
            assert answer["outputs"] == expected[number - 1]
            if not answer.get("replayed"):
                applied.append(number)
        else:  # the other one has gone on
            problem = answer.get("error", answer)
            assert problem["code"] == "step_conflict"
            assert problem["current_step"] > number

    async def over_rest() -> None:
        async with httpx.AsyncClient(base_url=service.url, timeout=30) as http:
            for number, row in enumerate(rows, start=1):
                response = await http.post(f"/v1/sessions/{name}/steps", json={"x": row, "step": number})
                check(number, response.json())

    async def over_websocket() -> None:
        async with connect_async(f"{service.ws_url}/v1/sessions/{name}/stream") as ws:
            await ws.recv()
            for number, row in enumerate(rows, start=1):
                await ws.send(json.dumps({"x": row, "step": number}))
                check(number, json.loads(await ws.recv()))

    # Neither can be at a gap: each has been answered for all earlier numbers.
    await asyncio.gather(over_rest(), over_websocket())
    assert sorted(applied) == list(range(1, len(rows) + 1)), "each was applied, and by one of them"
    assert step_count(client, name) == len(rows)


async def test_numbered_and_unnumbered_clients_on_one_session_are_each_told_the_truth(
    service: ConveyorServer, client: httpx.Client
) -> None:
    """One takes any place, the other only the one that it names: the places are all taken, by one each."""
    name = fresh(client, "mixed")
    places: dict[int, tuple[list[float], Any]] = {}

    def place(row: list[float], answer: dict[str, Any]) -> None:
        assert answer["step"] not in places, "a place was given twice"
        places[answer["step"]] = (row, answer["outputs"])

    async def unnumbered() -> None:
        async with connect_async(f"{service.ws_url}/v1/sessions/{name}/stream") as ws:
            await ws.recv()
            for row in readings(60, seed=1):
                await ws.send(json.dumps({"x": row}))
                place(row, json.loads(await ws.recv()))

    async def numbered() -> None:
        at = 0
        async with httpx.AsyncClient(base_url=service.url, timeout=30) as http:
            for row in readings(60, seed=2):
                answer = (await http.post(f"/v1/sessions/{name}/steps", json={"x": row, "step": at + 1})).json()
                if "outputs" in answer and not answer["replayed"]:
                    place(row, answer)
                    at = answer["step"]
                else:  # that place went to the other client: its answer, or where the session is
                    at = answer["current_step"] if "current_step" in answer else answer["step"]

    await asyncio.gather(unnumbered(), numbered())
    assert sorted(places) == list(range(1, step_count(client, name) + 1))
    assert len(places) >= 60
    retold = fresh(client, "retold")
    for number in sorted(places):
        row, outputs = places[number]
        assert step(client, retold, row)["outputs"] == outputs
