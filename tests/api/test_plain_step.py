"""Which requests a process that has no room refuses by their bytes: plain steps. The library reads all others."""

import pytest

from service.http import is_plain_step

PLAIN = b'POST /v1/sessions/a/steps HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n{"x":[1]}'


def test_a_plain_step_is_known_by_its_bytes() -> None:
    assert is_plain_step(PLAIN)


@pytest.mark.parametrize(
    ("what", "by"),
    [
        (b"POST", b"GET"),
        (b"/steps", b"/reset"),
        (b"/steps", b"/steps?a=1"),
        (b"Host: h", b"Connection: close"),
        (b"Host: h", b"Transfer-Encoding: chunked"),
        (b"Host: h", b"Expect: 100-continue"),
        (b"Content-Length: 9", b"Content-Length: 8"),
        (b"Content-Length: 9", b"Content-Length: 10"),
        (b"Content-Length: 9", b"Content-Length: 9\r\ncontent-length: 9"),
        (b"Content-Length: 9", b"X: y"),
        (b"\r\n\r\n", b"\r\n"),
        (b"Host: h", b"Host: h\nTransfer-Encoding: chunked"),
        (b"Host: h", b"Transfer-Encoding : chunked"),
        (b"Host: h", b"X: y\r\n Transfer-Encoding: chunked"),
        (b"Host: h", b"X: y\rTransfer-Encoding: chunked"),
        (b"Host: h", b"X: \0"),
        (b"Host: h", b"no header"),
        (b"Host: h", b"Origin: https://a.example"),
        (b"sessions/a/", b"sessions/a\r\nX:y/"),
        (b"sessions/a/", b"sessions/a#/"),
    ],
)
def test_what_is_more_or_less_is_read_by_the_library(what: bytes, by: bytes) -> None:
    changed = PLAIN.replace(what, by, 1)
    assert changed != PLAIN
    assert not is_plain_step(changed)


def test_a_connection_that_is_to_be_kept_alive_asks_for_nothing_more() -> None:
    assert is_plain_step(PLAIN.replace(b"Host: h", b"Host: h\r\nConnection: keep-alive"))
    assert not is_plain_step(PLAIN.replace(b"Host: h", b"Host: h\r\nConnection: keep-alive, upgrade"))


def test_two_requests_in_one_piece_are_read_by_the_library() -> None:
    assert not is_plain_step(PLAIN + PLAIN)
