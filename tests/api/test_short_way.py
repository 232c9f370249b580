"""Plain steps over HTTP go past the library and the framework: nobody can tell by what comes back."""

import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import httpx
import msgspec
import orjson
import pytest

from tests.api.wire import readings, step_count
from tests.conftest import OpenSession
from tests.servers import ConveyorServer, RedisServer, wait_until

ROW = readings(1)[0]
DATE = re.compile(rb"(?m)^date: [^\r]*\r\n")
THE_USUAL_WAY = b"/steps? HTTP"


def request(session_id: str, body: bytes, *headers: bytes) -> bytes:
    lines = [b"POST /v1/sessions/%b/steps HTTP/1.1" % session_id.encode(), b"Host: h", *headers]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body])


@contextmanager
def connected(server: ConveyorServer) -> Iterator[socket.socket]:
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=20)) as connection:
        yield connection


def answer(connection: socket.socket) -> tuple[bytes, bytes]:
    """Return the head and the body of the next answer."""
    content = b""
    while b"\r\n\r\n" not in content:
        content += (more := connection.recv(65536))
        assert more, "the connection was closed"
    head, _, body = content.partition(b"\r\n\r\n")
    (length,) = re.findall(rb"(?m)^content-length: (\d+)", head)
    while len(body) < int(length):
        body += connection.recv(65536)
    return head, body


def asked(connection: socket.socket, content: bytes) -> tuple[bytes, bytes]:
    connection.sendall(content)
    return answer(connection)


BODIES = {
    "a step": orjson.dumps({"x": ROW}),
    "a step with its number": orjson.dumps({"x": ROW, "step": 1}),
    "a chunk, all of it": orjson.dumps({"x": [ROW, ROW], "outputs": "all"}),
    "a gap": orjson.dumps({"x": ROW, "step": 9}),
    "too few numbers": orjson.dumps({"x": ROW[:3]}),
    "no numbers": b'{"x": []}',
    "an unknown field": b'{"y": 1}',
    "no JSON": b"{",
    "no UTF-8": b'{"x": ["\xff"]}',
    "nothing": b"",
}


@pytest.mark.parametrize("what", BODIES)
def test_both_ways_answer_the_same(service: ConveyorServer, open_session: OpenSession, what: str) -> None:
    answers = []
    with connected(service) as connection:
        for way in (b"/steps HTTP", THE_USUAL_WAY):
            content = request(open_session(), BODIES[what])
            head, body = asked(connection, content.replace(b"/steps HTTP", way))
            answers.append((DATE.sub(b"", head), re.sub(rb'"session_id":"[^"]*"', b"", body)))
    assert answers[0] == answers[1]


def test_both_ways_say_that_there_is_no_such_session(service: ConveyorServer, session_id: str) -> None:
    content = request(session_id, BODIES["a step"])
    with connected(service) as connection:
        short, usual = (
            asked(connection, content.replace(b"/steps HTTP", way)) for way in (b"/steps HTTP", THE_USUAL_WAY)
        )
    assert short[0].startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert [DATE.sub(b"", head) for head in (short[0], usual[0])] == [DATE.sub(b"", usual[0])] * 2
    assert short[1] == usual[1]


def test_messagepack_goes_the_short_way_too(service: ConveyorServer, open_session: OpenSession) -> None:
    kind = b"application/msgpack"
    content = request(open_session(), msgspec.msgpack.encode({"x": ROW}), b"Accept: " + kind, b"Content-Type: " + kind)
    with connected(service) as connection:
        head, body = asked(connection, content)
    assert b"\r\ncontent-type: application/msgpack" in head
    assert msgspec.msgpack.decode(body)["step"] == 1


@pytest.mark.parametrize("pieces", [2, 3, 40])
def test_a_step_may_come_in_pieces(service: ConveyorServer, open_session: OpenSession, pieces: int) -> None:
    content = request(open_session(), BODIES["a step"])
    with connected(service) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        start = content.index(b"\r\n\r\n") + 4 if pieces < 40 else 0
        size = -(-(len(content) - start) // (pieces - 1)) if pieces < 40 else -(-len(content) // pieces)
        if start:
            connection.sendall(content[:start])
        for at in range(start, len(content), size):
            time.sleep(0.01)
            connection.sendall(content[at : at + size])
        head, body = answer(connection)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert asked(connection, content)[0].startswith(b"HTTP/1.1 200 OK\r\n"), "the connection goes on"
    assert orjson.loads(body)["step"] == 1


def test_a_body_that_does_not_come_is_not_waited_for(redis: RedisServer, session_id: str) -> None:
    with ConveyorServer(redis_url=redis.url, request_timeout_s=0.5) as service, connected(service) as connection:
        content = request(session_id, BODIES["a step"])
        assert asked(connection, content)[0].startswith(b"HTTP/1.1 404")
        head, body = asked(connection, content[:-3])
        assert head.startswith(b"HTTP/1.1 408")
        assert orjson.loads(body)["code"] == "request_timeout"
        assert connection.recv(1) == b"", "the connection is closed"


def test_a_body_that_is_too_large_is_told_so(redis: RedisServer) -> None:
    with ConveyorServer(redis_url=redis.url, max_body_bytes=1024) as service, connected(service) as connection:
        head, body = asked(connection, request("a", b" " * 1025))
    assert head.startswith(b"HTTP/1.1 413")
    assert orjson.loads(body)["code"] == "body_too_large"


def test_steps_that_are_sent_ahead_are_answered_in_order(service: ConveyorServer, open_session: OpenSession) -> None:
    session_id = open_session()
    with connected(service) as connection:
        for number in range(1, 9):  # apart, so that each is known by its bytes or comes behind one that is
            connection.sendall(request(session_id, orjson.dumps({"x": ROW, "step": number})))
            time.sleep(0.001 * (number % 3))
        steps = []
        content = b""
        while len(steps) < 8:
            content += connection.recv(65536)
            steps = [int(found) for found in re.findall(rb'"step":(\d+)', content)]
    assert steps == [*range(1, 9)]


def test_a_client_that_leaves_has_its_step_applied(
    service: ConveyorServer, client: httpx.Client, open_session: OpenSession
) -> None:
    ids = [open_session() for _ in range(20)]
    for session_id in ids:
        with connected(service) as connection:
            connection.sendall(request(session_id, BODIES["a step"]))
    assert wait_until(lambda: all(step_count(client, session_id) == 1 for session_id in ids), 20)
    assert "Traceback" not in service.output()


@pytest.fixture
def held() -> Iterator[tuple[RedisServer, ConveyorServer]]:
    with RedisServer() as redis, ConveyorServer(redis_url=redis.url) as service:
        httpx.put(f"{service.url}/v1/sessions/a", json={"model": "hotspot"}).raise_for_status()
        yield redis, service


def test_a_step_in_flight_is_answered_when_the_service_is_told_to_stop(
    held: tuple[RedisServer, ConveyorServer],
) -> None:
    redis, service = held
    with connected(service) as connection, connected(service) as idle, connected(service) as begun:
        content = request("a", BODIES["a step"])
        begun.sendall(content[:-1])
        redis.signal(signal.SIGSTOP)  # so that the step stays in flight
        connection.sendall(content)
        time.sleep(0.3)
        service.terminate()
        waking = threading.Timer(0.5, redis.signal, [signal.SIGCONT])
        waking.start()
        head, body = answer(connection)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert orjson.loads(body)["step"] == 1
        assert connection.recv(1) == b"", "the connection is closed"
        assert idle.recv(1) == b""
        waking.join()
        assert service.wait(10) in (0, -signal.SIGTERM)
        assert "Traceback" not in service.output()


def test_where_requests_are_logged_steps_are(redis: RedisServer, session_id: str) -> None:
    with ConveyorServer(redis_url=redis.url, access_log=True) as service, connected(service) as connection:
        asked(connection, request(session_id, BODIES["a step"]))
        assert wait_until(lambda: f"/v1/sessions/{session_id}/steps" in service.output(), 5)
