"""Bytes on the port that are no HTTP, bodies that are no messages, records that are no sessions."""

import socket
from contextlib import suppress

import httpx
from hypothesis import given
from hypothesis import strategies as st

from service.core.record import HEADER
from tests.api.wire import MEDIA_TYPE, readings
from tests.budget import examples
from tests.fuzz.conftest import Witness
from tests.fuzz.test_frames import contents, mutated
from tests.servers import ConveyorServer

REQUEST = (
    b"POST /v1/sessions/a/steps HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b'Content-Length: 31\r\n\r\n{"x":[1,2,3,4,5,6,7,8],"step":4}'
)
CHUNKED = (
    b"PUT /v1/sessions/a/state HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nCVY\x01\x00\r\n0\r\n\r\n"
)
UPGRADE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
requests = st.one_of(
    st.binary(max_size=300),
    mutated(st.sampled_from([REQUEST, CHUNKED, UPGRADE, REQUEST + UPGRADE, UPGRADE + REQUEST])),
    st.sampled_from(
        [
            REQUEST.replace(b"31", b"-1"),
            REQUEST.replace(b"31", b"99999999999999999999"),
            REQUEST.replace(b"31", b"31\r\nContent-Length: 5"),
            REQUEST.replace(b"31", b"3_1"),
            REQUEST.replace(b"31", "٣١".encode()),
            CHUNKED.replace(b"5\r\n", b"ffffffffffffffffffff\r\n"),
            CHUNKED.replace(b"chunked", b"chunked\r\nContent-Length: 3"),
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET " + b"/a" * 40_000 + b" HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
            b"GET / HTTP/1.1\r\nA: " + b"b" * 200_000 + b"\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100,  # TLS
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ]
    ),
)


@given(content=requests, half=st.booleans())
@examples(250)
def test_what_is_no_http_harms_nobody(fuzzed: ConveyorServer, content: bytes, half: bool) -> None:
    with socket.create_connection(("127.0.0.1", fuzzed.port), timeout=20) as connection, suppress(OSError):
        connection.sendall(content)
        if half:
            connection.shutdown(socket.SHUT_WR)
        connection.settimeout(0.02)
        answer = connection.recv(65536)
        assert b" 500 " not in answer.split(b"\r\n")[0]


@given(
    content=contents,
    path=st.sampled_from(
        ["/v1/sessions/a/steps", "/v1/steps", "/v1/sessions", "/v1/sessions/a/fork", "/v1/sessions/a/state"]
    ),
    content_type=st.sampled_from(
        ["application/json", "application/msgpack", "text/plain", "application/json; charset=utf-16", "é"]
    ),
    accept=st.sampled_from(["*/*", "application/msgpack", "text/html"]),
)
@examples(250)
def test_a_body_that_is_no_message_is_a_problem(
    fuzzed: ConveyorServer, witness: Witness, content: bytes, path: str, content_type: str, accept: str
) -> None:
    method = "PUT" if path.endswith("state") else "POST"
    headers = {"content-type": content_type.encode("utf-8"), "accept": accept.encode()}
    response = witness.client.request(method, path, content=content, headers=headers)  # type: ignore[arg-type]
    assert response.status_code < 500
    if response.status_code >= 400:
        assert response.headers["content-type"] == MEDIA_TYPE


def _record(client: httpx.Client) -> bytes:
    return client.get("/v1/sessions/c/state").content


@given(data=st.data())
@examples(250)
def test_record_bytes_are_refused_or_are_a_session_that_works(
    fuzzed: ConveyorServer, witness: Witness, data: st.DataObject
) -> None:
    """Headers are hit harder than the numbers behind them, of which there are fifty times as many."""
    client, record = witness.client, bytearray(_record(witness.client))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, HEADER.size + 10) | st.integers(0, len(record) - 1))
        instead = data.draw(
            st.binary(min_size=1, max_size=8) | st.sampled_from([b"\0" * 8, b"\xff" * 8, b"\0\0\x80\x7f"])
        )
        record[start : start + len(instead)] = instead
    if data.draw(st.integers(0, 9)) == 0:
        record = record[: data.draw(st.integers(0, len(record)))]
    restored = client.put("/v1/sessions/b/state", content=bytes(record))
    assert restored.status_code in (200, 201, 409, 422), restored.text
    if restored.is_success:
        at = restored.json()["step"]
        stepped = client.post("/v1/sessions/b/steps", json={"x": readings(1)[0], "step": at + 1})
        assert stepped.status_code in (200, 422), stepped.text
        for path in ("/v1/sessions/b", "/v1/sessions?limit=1000", "/v1/sessions/b/state"):
            assert client.get(path).status_code == 200
        client.delete("/v1/sessions/b")
