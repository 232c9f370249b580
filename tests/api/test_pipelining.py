"""Requests that are sent before earlier ones were answered: answered in their order, whatever comes behind them."""

import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import httpx
import orjson
import pytest

from tests.api.wire import readings, step_count
from tests.conftest import OpenSession
from tests.servers import ConveyorServer, RedisServer, wait_until

Answers = list[tuple[int, dict[str, object]]]

UPGRADE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
CHUNKED = b"POST /v1/steps HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
BEHIND = {
    "no HTTP": (b"hello\r\n\r\n", 400, "bad_request"),
    "a head that is too large": (b"GET / HTTP/1.1\r\na: " + b"x" * 33_000 + b"\r\n\r\n", 431, "head_too_large"),
    "a body that is none": (CHUNKED + b"no size", 400, "bad_request"),
    "half a body": (CHUNKED + b"1\r\n{", 408, "request_timeout"),
    "half a head": (b"GET / HTTP/1.1\r\n", 408, "request_timeout"),
    "a WebSocket": (UPGRADE, 404, "not_found"),
}


@pytest.fixture(scope="module")
def server(redis: RedisServer) -> Iterator[ConveyorServer]:
    with ConveyorServer(redis_url=redis.url, request_timeout_s=1) as server:
        yield server


def steps(session_id: str, count: int) -> bytes:
    bodies = [orjson.dumps({"x": x, "step": number}) for number, x in enumerate(readings(count), 1)]
    head = f"POST /v1/sessions/{session_id}/steps HTTP/1.1\r\nHost: h\r\nContent-Length: "
    return b"".join(b"%b%d\r\n\r\n%b" % (head.encode(), len(body), body) for body in bodies)


def answers(connection: socket.socket) -> Answers:
    """Return status and body of each answer that comes until the service closes."""
    content, found = b"", []
    while more := connection.recv(65536):
        content += more
    while content:
        head, _, rest = content.partition(b"\r\n\r\n")
        (length,) = re.findall(rb"(?m)^content-length: (\d+)", head)
        found.append((int(head.split()[1]), orjson.loads(rest[: int(length)])))
        content = rest[int(length) :]
    return found


def connected(server: ConveyorServer) -> closing[socket.socket]:
    return closing(socket.create_connection(("127.0.0.1", server.port), timeout=20))


@pytest.mark.parametrize("what", BEHIND)
def test_what_is_refused_is_told_so_behind_the_answers_that_are_owed(
    server: ConveyorServer, open_session: OpenSession, what: str
) -> None:
    content, status, code = BEHIND[what]
    with connected(server) as connection:
        connection.sendall(steps(open_session(), 3) + content)
        *owed, (refused, problem) = answers(connection)
    assert [(status, body["step"]) for status, body in owed] == [(200, 1), (200, 2), (200, 3)]
    assert (refused, problem["code"]) == (status, code)


def test_a_request_that_does_not_come_to_its_end_behind_another_is_ended_too(
    server: ConveyorServer, open_session: OpenSession
) -> None:
    with connected(server) as connection:
        connection.sendall(steps(open_session(), 1))
        time.sleep(0.2)  # for the answer, most often; else it is owed, as above
        connection.sendall(b"GET / HTTP/1.1\r\n")
        assert [status for status, _ in answers(connection)] == [200, 408]


@pytest.mark.parametrize("behind", [b"", b"hello\r\n\r\n", UPGRADE], ids=["nothing", "no HTTP", "a WebSocket"])
def test_a_client_that_leaves_before_its_answers_leaves_nothing_in_the_log(
    server: ConveyorServer, client: httpx.Client, open_session: OpenSession, behind: bytes
) -> None:
    ids = [open_session() for _ in range(10)]
    for session_id in ids:
        with connected(server) as connection:
            connection.sendall(steps(session_id, 2) + behind)
            connection.shutdown(socket.SHUT_WR)
            answers(connection)
    assert wait_until(lambda: all(step_count(client, session_id) for session_id in ids), 20), "the first was read"
    assert "Traceback" not in server.output()
