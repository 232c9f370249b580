"""Every limit is kept by a real service, told to its client, and listed in ``docs/limits.md``."""

import re
import resource
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from service import http_limits
from service.adapters import onnx_file, onnx_model
from service.core import spec, timestep
from service.settings import Settings
from tests.api.wire import readings, require_problem_body, step_count
from tests.conftest import OpenSession
from tests.servers import REPOSITORY, ConveyorServer, RedisServer
from tests.test_websocket import CONTINUATION, TEXT, connected, frame, step

PAGE = (REPOSITORY / "docs" / "limits.md").read_text()
OF_CODE = {
    "MAX_HEAD_BYTES": http_limits.MAX_HEAD_BYTES,
    "MAX_HEADERS": http_limits.MAX_HEADERS,
    "MAX_URL_BYTES": http_limits.MAX_URL_BYTES,
    "MAX_ABS": timestep.MAX_ABS,
    "MAX_PARTS": onnx_file.MAX_PARTS,
    "MAX_NODES": onnx_file.MAX_NODES,
    "MAX_LOOP_S": onnx_model.MAX_LOOP_S,
    "MAX_JSON": spec.MAX_JSON,
    "MAX_ITEMS": spec.MAX_ITEMS,
    "MAX_SIZE": spec.MAX_SIZE,
    "MAX_DEPTH": spec.MAX_DEPTH,
}


@contextmanager
def raw(service: ConveyorServer) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        yield connection


def answer(connection: socket.socket) -> httpx.Response:
    """Read what the server says until it closes."""
    content = b""
    try:
        while data := connection.recv(65536):
            content += data
    except ConnectionResetError:
        pass  # it had not read all that was sent
    head, _, body = content.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    return httpx.Response(int(status.split()[1]), headers=headers, content=body)


def drip(connection: socket.socket, drop: bytes, *, pause_s: float) -> None:
    """Send the same bytes again and again. Raises `OSError` when the server has closed the connection."""
    for _ in range(1000):
        connection.sendall(drop)
        time.sleep(pause_s)


def require_refusal(response: httpx.Response, status: int, code: str, says: str) -> None:
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["connection"] == "close"
    require_problem_body(response.json(), status, code, says)


HEADS = {
    "a long URL": (b"GET /healthz?" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 414, "url_too_long", "at most 8192"),
    "many headers": (b"GET /healthz HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n", 431, "head_too_large", "101 headers"),
    "a long header": (
        b"GET /healthz HTTP/1.1\r\na: " + b"x" * 33_000 + b"\r\n\r\n",
        431,
        "head_too_large",
        "more than 32768 bytes",
    ),
    "many headers for a WebSocket": (
        b"GET /v1/stream HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n" + b"a: b\r\n" * 101 + b"\r\n",
        431,
        "head_too_large",
        "103 headers",
    ),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01", 400, "bad_request", "no HTTP/1.1 request"),
}


@pytest.mark.parametrize("what", HEADS)
def test_a_head_that_holds_too_much_is_refused(service: ConveyorServer, what: str) -> None:
    content, status, code, says = HEADS[what]
    with raw(service) as connection:
        connection.sendall(content)
        require_refusal(answer(connection), status, code, says)


def test_a_header_without_an_end_is_not_kept(service: ConveyorServer) -> None:
    with raw(service) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\na: ")
        with pytest.raises(OSError, match=r"reset|pipe"):
            drip(connection, b"x" * 2**16, pause_s=0)


def test_a_request_that_does_not_come_to_its_end_is_ended(redis: RedisServer) -> None:
    pieces = {
        "nothing": b"",
        "half a head": b"GET /healthz HTTP/1.1\r\na:",
        "half a body": b"POST /v1/steps HTTP/1.1\r\ncontent-length: 100\r\n\r\n{",
    }
    with ConveyorServer(redis_url=redis.url, request_timeout_s=1) as service, ExitStack() as stack:
        connections = {what: stack.enter_context(raw(service)) for what in pieces}
        for what, connection in connections.items():
            connection.sendall(pieces[what])
        dripping = stack.enter_context(raw(service))
        dripping.sendall(b"GET /healthz HTTP/1.1\r\nx: ")
        with pytest.raises(OSError, match=r"reset|pipe"):
            drip(dripping, b"y", pause_s=0.1)
        for connection in connections.values():
            require_refusal(answer(connection), 408, "request_timeout", "not all here after 1 s")
        with httpx.Client(base_url=service.url) as client:  # one that does come is not hurried on
            client.put("/v1/sessions/slow", json={"model": "hotspot"})
            time.sleep(1.5)
            assert client.get("/v1/sessions/slow").json()["step"] == 0


def test_connections_beyond_the_limit_are_told_to_come_back(redis: RedisServer) -> None:
    with ConveyorServer(redis_url=redis.url, max_connections=3) as service, ExitStack() as stack:
        held = [stack.enter_context(raw(service)) for _ in range(3)]
        with raw(service) as connection:
            response = answer(connection)
        require_refusal(response, 429, "overloaded", "has 3 connections, its limit")
        assert int(response.headers["retry-after"]) >= 1
        held.pop().close()
        deadline = time.monotonic() + 20
        while httpx.get(f"{service.url}/healthz").status_code != 200:
            assert time.monotonic() < deadline


def test_a_message_in_very_many_fragments_is_one_message(service: ConveyorServer, open_session: OpenSession) -> None:
    with connected(service, open_session()) as client:
        content = step(1)
        client.send(frame(TEXT, content[:1], fin=False))
        pieces = [frame(CONTINUATION, content[i : i + 1], fin=False) for i in range(1, len(content))]
        client.send(b"".join(pieces), frame(CONTINUATION, b"", fin=False) * 50_000, frame(CONTINUATION, b""))
        assert client.receive()["step"] == 1


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def test_fragments_of_one_byte_take_little_memory(redis: RedisServer) -> None:
    with ConveyorServer(redis_url=redis.url) as service:
        httpx.put(f"{service.url}/v1/sessions/s", json={"model": "hotspot"}, timeout=20)
        with connected(service, "s") as client:
            before = _resident(service.pid)
            client.send(frame(TEXT, b"[", fin=False), frame(CONTINUATION, b"1", fin=False) * 500_000)
            client.send(frame(9, b"all read?"))
            client.frame()
            assert _resident(service.pid) - before < 24 * 2**20


UNBELIEVABLE = ["1e39", "-1e39", "1e308", "18446744073709551616" * 2, "1e400", "NaN", "Infinity", "true", '"1"', "null"]


@pytest.mark.parametrize("number", UNBELIEVABLE)
@pytest.mark.parametrize("where", ["steps", "history"])
def test_a_number_that_is_none_advances_nothing(
    client: httpx.Client, open_session: OpenSession, session_id: str, number: str, where: str
) -> None:
    row = f"[{number}, 2, 3, 4, 5, 6, 7, 8]"
    if where == "history":
        body = f'{{"model": "hotspot", "history": [{row}]}}'
        response = client.put(f"/v1/sessions/{session_id}", content=body, headers={"content-type": "application/json"})
        assert client.get(f"/v1/sessions/{session_id}").status_code == 404
    else:
        opened = open_session()
        response = client.post(f"/v1/sessions/{opened}/steps", content=f'{{"x": {row}}}')
        assert step_count(client, opened) == 0
    assert response.status_code == 422, response.text


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7F800000, 0xFF800000, 0x7F800001, 0x7F7FFFFF], ids=hex)
def test_a_tensor_with_such_a_number_advances_nothing(
    client: httpx.Client, open_session: OpenSession, bits: int
) -> None:
    msgpack = pytest.importorskip("msgspec").msgpack
    session_id = open_session()
    data = struct.pack("<I", bits) + bytes(28)
    body = msgpack.encode({"x": {"shape": [8], "data": data}})
    response = client.post(
        f"/v1/sessions/{session_id}/steps", content=body, headers={"content-type": "application/msgpack"}
    )
    assert (response.status_code, response.json()["code"]) == (422, "invalid_timestep")
    assert step_count(client, session_id) == 0


@pytest.mark.parametrize("number", ["-0.0", "1e-45", "1e-320", "-5e-324", "1e18"])
def test_numbers_that_are_merely_odd_are_numbers(client: httpx.Client, open_session: OpenSession, number: str) -> None:
    session_id = open_session()
    response = client.post(
        f"/v1/sessions/{session_id}/steps", content=f'{{"x": [{number}, {", ".join(map(str, readings(1)[0][1:]))}]}}'
    )
    assert (response.status_code, response.json()["step"]) == (200, 1)


def test_the_page_lists_every_limit_that_is_a_setting_with_its_default() -> None:
    listed = re.findall(r"^\| [^|]+ \| (none|[\d.e+]+) \| `CONVEYOR_(\w+)` \|", PAGE, re.MULTILINE)
    rows = {name: value for value, name in listed}
    limits = {name.upper() for name in Settings.model_fields if name.startswith("max_")}
    assert limits <= rows.keys()
    for name, value in rows.items():
        assert (None if value == "none" else float(value)) == Settings.model_fields[name.lower()].default, name


def test_the_page_lists_every_limit_of_the_code() -> None:
    listed = re.findall(r"^\| [^|]+ \| ([\d.e+]+) \| `(MAX_\w+)` \|", PAGE, re.MULTILINE)
    assert {name: float(value) for value, name in listed} == OF_CODE


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells there how much memory is in use")
def test_names_that_no_session_has_are_not_remembered(redis: RedisServer) -> None:
    def resident_bytes(pid: int) -> int:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    with ConveyorServer(redis_url=redis.url) as service, httpx.Client(base_url=service.url, timeout=30) as client:

        def ask(number: int) -> None:
            name = f"{number}-" + "a" * 1_900_000
            answered = client.post("/v1/steps", json={"steps": [{"session_id": name, "x": readings(1)[0]}]})
            assert answered.json()["results"][0]["error"]["code"] == "session_not_found"

        for number in range(20):
            ask(number)
        before = resident_bytes(service.pid)
        for number in range(20, 120):
            ask(number)
        # Each name that is kept takes as much as it is long, and a second time as it goes to Redis.
        assert resident_bytes(service.pid) - before < 100 * 1_900_000 / 2
