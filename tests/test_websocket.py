"""The fast lane beside the websockets library: whatever way the bytes of a message come, it is the same message.

A client that controls every byte talks to the real service; the library's own protocol reads what comes back.
"""

import json
import random
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from tests.api.wire import readings
from tests.conftest import OpenSession
from tests.servers import ConveyorServer, RedisServer, redis_command

TEXT, BINARY, CONTINUATION, CLOSE, PING = 1, 2, 0, 8, 9
MASK = bytes((0x1D, 0xE5, 0x42, 0xA7))
LIMIT = 8 * 2**20


class RawClient:
    """Sends bytes, and reads frames."""

    def __init__(self, service: ConveyorServer, path: str, *early: bytes) -> None:
        self._protocol = ClientProtocol(parse_uri(service.ws_url + path), max_size=None)
        self.socket = socket.create_connection(("127.0.0.1", service.port), timeout=20)
        self._protocol.send_request(self._protocol.connect())
        self.send(*self._protocol.data_to_send())
        for piece in early:
            time.sleep(0.005)  # or it would come in one segment with the handshake, of which uvicorn drops the rest
            self.send(piece)
        self._events: list[Any] = []
        self._next()  # the handshake's response

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.socket.sendall(piece)

    def receive(self) -> dict[str, Any]:
        frame = self.frame()
        assert frame.opcode is Opcode.TEXT, frame
        return dict(json.loads(frame.data))

    def frame(self) -> Frame:
        frame = self._next()
        assert isinstance(frame, Frame)
        return frame

    def close_code(self) -> int:
        """Read on until the server's closing frame; return its code."""
        while (frame := self.frame()).opcode is not Opcode.CLOSE:
            pass
        return int(struct.unpack("!H", bytes(frame.data[:2]))[0])

    def _next(self) -> Any:
        while not self._events:
            data = self.socket.recv(65536)
            assert data, "the server closed the connection without a closing frame"
            self._protocol.receive_data(data)
            assert self._protocol.handshake_exc is None, self._protocol.handshake_exc
            self._events += self._protocol.events_received()
            self._protocol.data_to_send()  # what the library would answer is not sent: the tests say what is
        return self._events.pop(0)


def frame(opcode: int, payload: bytes, *, fin: bool = True, masked: bool = True) -> bytes:
    first, mask = (0x80 if fin else 0) | opcode, 0x80 if masked else 0
    if len(payload) < 126:
        head = struct.pack("!BB", first, mask | len(payload))
    elif len(payload) < 2**16:
        head = struct.pack("!BBH", first, mask | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, mask | 127, len(payload))
    if not masked:
        return head + payload
    return head + MASK + bytes(byte ^ MASK[i % 4] for i, byte in enumerate(payload))


def step(number: int, spaces: int = 0) -> bytes:
    """A step as a client may write it, as long as it likes."""
    return json.dumps({"x": readings(number)[-1], "step": number}).encode() + b" " * spaces


@contextmanager
def connected(service: ConveyorServer, session_id: str, *early: bytes) -> Iterator[RawClient]:
    client = RawClient(service, f"/v1/sessions/{session_id}/stream", *early)
    with client.socket:
        assert client.receive()["session_id"] == session_id
        yield client


@pytest.fixture(scope="module")
def expected(service: ConveyorServer) -> list[dict[str, Any]]:
    """The answers to steps 1 to 8."""
    client = RawClient(service, "/v1/sessions/expected/stream?model=hotspot")
    with client.socket:
        client.receive()
        client.send(*(frame(TEXT, step(number)) for number in range(1, 9)))
        return [client.receive() for _ in range(8)]


@pytest.mark.parametrize("seed", range(6))
def test_bytes_may_come_in_any_pieces(
    service: ConveyorServer, open_session: OpenSession, expected: list[dict[str, Any]], seed: int
) -> None:
    draw = random.Random(seed)
    content = b"".join(
        [
            frame(TEXT, step(1)),
            frame(BINARY, step(2)),
            frame(TEXT, step(3, spaces=200)),
            frame(PING, b"still there?"),
            frame(TEXT, step(4)[:20], fin=False) + frame(PING, b"between") + frame(CONTINUATION, step(4)[20:]),
            frame(TEXT, b"", fin=False) + frame(CONTINUATION, step(5), fin=False) + frame(CONTINUATION, b""),
            frame(TEXT, step(6, spaces=70_000)),
            frame(TEXT, step(7)),
            frame(BINARY, step(8)),
        ]
    )
    with connected(service, open_session()) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while content:
            size = draw.choice([1, 2, 3, 7, 100, 5000])
            client.send(content[:size])
            content = content[size:]
        frames = [client.frame() for _ in range(10)]
    answers = [json.loads(each.data) for each in frames if each.opcode is Opcode.TEXT]
    assert answers == expected
    assert [bytes(each.data) for each in frames if each.opcode is Opcode.PONG] == [b"still there?", b"between"]


def test_messages_of_a_client_that_does_not_wait_for_the_handshake_are_answered(
    service: ConveyorServer, open_session: OpenSession, expected: list[dict[str, Any]]
) -> None:
    early = frame(TEXT, step(1)) + frame(TEXT, step(2))
    with connected(service, open_session(), early[:30], early[30:]) as client:
        client.send(frame(TEXT, step(3)))
        assert [client.receive() for _ in range(3)] == expected[:3]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_an_empty_message_is_no_json(service: ConveyorServer, open_session: OpenSession, opcode: int) -> None:
    with connected(service, open_session()) as client:
        client.send(frame(opcode, b""))
        assert client.receive()["error"]["code"] == "invalid_request"
        client.send(frame(TEXT, step(1)))
        assert client.receive()["step"] == 1


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(frame(TEXT, step(1), masked=False), 1002, id="not masked"),
        pytest.param(frame(3, b"?"), 1002, id="unknown opcode"),
        pytest.param(b"\xc1" + frame(TEXT, step(1))[1:], 1002, id="reserved bit"),
        pytest.param(frame(CONTINUATION, step(1)), 1002, id="continues nothing"),
        pytest.param(frame(TEXT, b"{", fin=False) + frame(TEXT, step(1)), 1002, id="a message within a message"),
        pytest.param(frame(PING, b"x" * 126), 1002, id="a ping that is too long"),
        pytest.param(frame(TEXT, b'{"x": "\xff"}'), 1007, id="not UTF-8"),
        pytest.param(frame(TEXT, b'"\xff', fin=False) + frame(CONTINUATION, b'"'), 1007, id="not UTF-8, in fragments"),
        pytest.param(b"\x81\xff" + struct.pack("!Q", LIMIT + 1) + MASK, 1009, id="a frame that will be too long"),
        pytest.param(b"\x81\xff" + struct.pack("!Q", 2**63) + MASK, 1009, id="an impossible length"),
        pytest.param(frame(CLOSE, struct.pack("!H", 1000)), 1000, id="the client closes"),
    ],
)
def test_a_breach_of_the_protocol_closes_the_socket_alone(
    service: ConveyorServer, open_session: OpenSession, content: bytes, code: int
) -> None:
    session_id = open_session()
    with connected(service, session_id) as client:
        client.send(frame(TEXT, step(1)))
        client.receive()
        client.send(content)
        assert client.close_code() == code
    with connected(service, session_id) as client:
        client.send(frame(TEXT, step(2)))
        assert client.receive()["step"] == 2


@pytest.mark.parametrize("pieces", [1, 2], ids=["whole", "in fragments"])
def test_what_is_not_utf8_closes_a_socket_that_has_not_been_greeted_too(pieces: int) -> None:
    early = [frame(TEXT, b'"\xff"')] if pieces == 1 else [frame(TEXT, b'"\xff', fin=False), frame(CONTINUATION, b'"')]
    with RedisServer() as redis, ConveyorServer(redis_url=redis.url) as service:
        redis_command(redis.url, "CLIENT", "PAUSE", "1000", "ALL")  # the greeting waits for the session
        client = RawClient(service, "/v1/sessions/s/stream?model=hotspot", *early)
        with client.socket:
            assert client.close_code() == 1007
        assert "rror" not in service.output()


def test_what_follows_a_closing_frame_is_not_read(service: ConveyorServer, open_session: OpenSession) -> None:
    session_id = open_session()
    with connected(service, session_id) as client:
        client.send(frame(TEXT, step(1)) + frame(CLOSE, struct.pack("!H", 1000)) + frame(TEXT, step(2)))
        assert client.close_code() == 1000
    with connected(service, session_id) as client:
        client.send(frame(TEXT, step(2)))
        answer = client.receive()
    assert answer["step"] == 2
    assert "replayed" not in answer


def test_a_client_that_leaves_while_it_is_kept_waiting_is_no_error(redis: RedisServer) -> None:
    """What was read of it and not handed over is nobody's any more."""
    with ConveyorServer(redis_url=redis.url, max_in_flight=1) as service:
        httpx.put(f"{service.url}/v1/sessions/s", json={"model": "hotspot"}, timeout=20)
        for _ in range(10):
            with connected(service, "s") as client:
                client.send(frame(TEXT, step(1)) * 2000)
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert httpx.get(f"{service.url}/healthz", timeout=20).status_code == 200
        assert "Exception" not in service.output()
