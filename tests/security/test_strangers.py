"""What strangers can make a service hold, or write into its log, before anybody knows who they are."""

import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from tests.security.credentials import ALL, KeyRing
from tests.servers import ConveyorServer

UPGRADE = (
    b"Host: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConveyorServer]:
    ring = KeyRing(tmp_path_factory.mktemp("keys") / "keys.json")
    server = ConveyorServer(redis_url="memory://", api_keys=ring.path)
    server.key = ring.add("a", *ALL)  # type: ignore[attr-defined]
    with server:
        yield server


def until_closed(server: ConveyorServer, *pieces: bytes) -> bytes:
    """Send bytes, and return all that comes until the service closes. Raises `TimeoutError` where it does not."""
    received = b""
    with closing(socket.create_connection(("127.0.0.1", server.port), 20)) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.1)
        with suppress(ConnectionResetError):
            while more := connection.recv(65536):
                received += more
    return received


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1/stream HTTP/1.1\r\n" + UPGRADE + b"Content-Length: 3\r\n\r\nabc",
        b"POST /v1/stream HTTP/1.1\r\n" + UPGRADE + b"Content-Length: 3\r\n\r\nabc",
        b"GET /v1/stream HTTP/1.1\r\n" + UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /v1/stream HTTP/1.1\r\n" + UPGRADE + b"X: " + b"x" * 9000 + b"\r\n\r\n",
    ],
    ids=["body", "POST", "chunked", "long line"],
)
def test_a_handshake_that_the_library_cannot_read_is_answered_and_closed(service: ConveyorServer, head: bytes) -> None:
    answer = until_closed(service, head)
    assert answer.startswith(b"HTTP/1.1 4"), answer
    assert b"connection: close" in answer.lower()


def test_what_comes_behind_a_body_is_not_kept_without_bound(service: ConveyorServer) -> None:
    began = b"POST /v1/steps HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: "
    sent = 0
    with closing(socket.create_connection(("127.0.0.1", service.port), 20)) as connection:
        connection.sendall(began)
        with suppress(ConnectionError):
            while sent < 64 * 2**20:
                connection.sendall(b"x" * 2**16)
                sent += 2**16
    assert sent < 64 * 2**20, "nobody stopped this"


def test_a_key_behind_the_body_is_none(service: ConveyorServer) -> None:
    request = (
        b"POST /v1/steps HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b'c\r\n{"steps":[]}\r\n0\r\nAuthorization: Bearer %b\r\n\r\n' % service.key.encode()  # type: ignore[attr-defined]
    )
    assert until_closed(service, request).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize(
    "request_", [b"GET /v1/stream HTTP/1.1\r\n" + UPGRADE.replace(b"13", b"12") + b"\r\n", b"\0\r\n\r\n"]
)
def test_what_is_no_request_leaves_no_traceback(service: ConveyorServer, request_: bytes) -> None:
    assert until_closed(service, request_).startswith(b"HTTP/1.1 4")
    page = b"GET /v1/stream HTTP/1.1\r\n" + UPGRADE + b"Origin: https://elsewhere.example\r\n\r\n"
    assert until_closed(service, page).startswith(b"HTTP/1.1 403")
    assert "Traceback" not in service.output()
    assert "error" not in service.output()


def test_a_body_that_looks_like_a_request_is_none(service: ConveyorServer) -> None:
    inner = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
    head = b"POST /v1/steps HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(inner)
    last = b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    answers = until_closed(service, head, inner, last)
    assert answers.count(b"HTTP/1.1 401") == answers.count(b"HTTP/1.1 200") == 1
