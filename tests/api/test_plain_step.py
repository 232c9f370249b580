"""Which requests go the short way, by their bytes: plain steps. The library reads all others."""

import pytest

from service.api.encodings import JSON, MSGPACK
from service.plain_step import MAX_BODY_BYTES, StepReader, read_head

PLAIN = b'POST /v1/sessions/a/steps HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n{"x":[1]}'


def test_a_plain_step_is_known_by_its_bytes() -> None:
    found = StepReader().read(PLAIN)
    assert found is not None
    head, body = found
    assert (head.session_id, head.sent, head.wanted, body) == ("a", JSON, JSON, b'{"x":[1]}')
    assert head.headers == [(b"host", b"h"), (b"content-length", b"9")]


@pytest.mark.parametrize(
    ("what", "by"),
    [
        (b"POST", b"GET"),
        (b"/steps", b"/reset"),
        (b"/steps", b"/steps?a=1"),
        (b"Host: h", b"Connection: close"),
        (b"Host: h", b"Connection: keep-alive\r\nConnection: close"),
        (b"Host: h", b"Transfer-Encoding: chunked"),
        (b"Host: h", b"Expect: 100-continue"),
        (b"Host: h", b"Upgrade: h2c"),
        (b"Host: h", b"Proxy-Connection: close"),
        (b"Content-Length: 9", b"Content-Length: 8"),
        (b"Content-Length: 9", b"Content-Length: 9\r\ncontent-length: 9"),
        (b"Content-Length: 9", b"Content-Length: 9, 9"),
        (b"Content-Length: 9", b"Content-Length: +9"),
        (b"Content-Length: 9", b"Content-Length: 9 "),
        (b"Content-Length: 9", b"X: y"),
        (b"\r\n\r\n", b"\r\n"),
        (b"Host: h", b"Host: h\nTransfer-Encoding: chunked"),
        (b"Host: h", b"Transfer-Encoding : chunked"),
        (b"Host: h", b"X: y\r\n Transfer-Encoding: chunked"),
        (b"Host: h", b"X: y\rTransfer-Encoding: chunked"),
        (b"Host: h", b"X: \0"),
        (b"Host: h", b"no header"),
        (b"Host: h", b": h"),
        (b"Host: h", b"Origin: https://a.example"),
        (b"Host: h", b"X: " + 4096 * b"y"),
        (b"Host: h", b"\r\n".join([b"X: y"] * 65)),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"sessions/a/", b"sessions/a\r\nX:y/"),
        (b"sessions/a/", b"sessions/a#/"),
        (b"sessions/a/", b"sessions/%61/"),
        (b"sessions/a/", b"sessions/" + 129 * b"a" + b"/"),
    ],
)
def test_what_is_more_or_less_is_read_by_the_library(what: bytes, by: bytes) -> None:
    changed = PLAIN.replace(what, by, 1)
    assert changed != PLAIN
    assert StepReader().read(changed) is None


def test_a_connection_that_is_to_be_kept_alive_asks_for_nothing_more() -> None:
    assert StepReader().read(PLAIN.replace(b"Host: h", b"Host: h\r\nConnection: keep-alive"))
    assert StepReader().read(PLAIN.replace(b"Host: h", b"Host: h\r\nConnection: keep-alive, upgrade")) is None


def test_two_requests_in_one_piece_are_read_by_the_library() -> None:
    assert StepReader().read(PLAIN + PLAIN) is None


def test_a_body_may_come_later() -> None:
    reader = StepReader()
    for length in (len(PLAIN) - 9, len(PLAIN) - 1):
        found = reader.read(PLAIN[:length])
        assert found is not None
        assert found[1] is None


def test_a_large_body_is_read_by_the_library() -> None:
    large = PLAIN.replace(b"Length: 9", b"Length: %d" % (MAX_BODY_BYTES + 1))
    assert StepReader().read(large) is None
    assert StepReader(8).read(PLAIN) is None
    assert StepReader(9).read(PLAIN) is not None


def test_each_head_of_a_connection_is_read_for_itself() -> None:
    reader = StepReader()
    for number in [*range(10), *range(10)]:
        found = reader.read(PLAIN.replace(b"/a/", b"/a%d/" % number))
        assert found is not None
        assert found[0].session_id == f"a{number}"


@pytest.mark.parametrize(
    ("headers", "sent", "wanted"),
    [
        (b"Content-Type: application/json\r\nAccept: */*", JSON, JSON),
        (b"content-type: application/msgpack", MSGPACK, JSON),
        (b"Content-Type:application/msgpack\r\nACCEPT: \tapplication/msgpack, */*", MSGPACK, MSGPACK),
    ],
)
def test_it_says_how_bodies_are_encoded(headers: bytes, sent: object, wanted: object) -> None:
    head = read_head(PLAIN[:-9].replace(b"Host: h", headers))
    assert head is not None
    assert (head.sent, head.wanted) == (sent, wanted)
