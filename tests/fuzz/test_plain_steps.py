"""A plain step is what the library would have read: the same request, and nothing else."""

from typing import Any

import httptools
from hypothesis import given
from hypothesis import strategies as st

from service.plain_step import StepReader
from tests.fuzz.test_frames import mutated

PLAIN = (b"Connection: keep-alive", b"Host:h", b"Accept: */*", b"X: y", b"X:", b"X: \xff", b"Authorization: Bearer a b")
OTHERS = (
    b"Content-Length: 9",
    b"Transfer-Encoding: chunked",
    b"Connection: close",
    b"Upgrade: websocket",
    b"Proxy-Connection: close",
    b"Expect: 100-continue",
    b"X : y",
    b" X: y",
    b"\xff: y",
    b"X: y \t",
)
HEADERS = st.one_of(*[st.sampled_from(PLAIN)] * 5, st.sampled_from(OTHERS))
PATHS = st.sampled_from([b"a", b"a@~:.-_", b"", b"a/b", b"%61"])
LENGTHS = st.sampled_from([b"9", b"9", b"09", b"8", b"10"])


def request(session_id: bytes, length: bytes, headers: list[bytes]) -> bytes:
    lines = [b"POST /v1/sessions/%b/steps HTTP/1.1" % session_id, b"Content-Length: " + length, *headers]
    return b"\r\n".join([*lines, b"", b'{"x":[1]}'])


requests = st.builds(request, PATHS, LENGTHS, st.lists(HEADERS, max_size=5))


class Read:
    """What the library makes of some bytes."""

    def __init__(self, content: bytes) -> None:
        self.url = self.body = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.messages = 0
        self.parser: Any = httptools.HttpRequestParser(self)
        self.parser.feed_data(content)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.messages += 1


@given(content=st.one_of(requests, mutated(requests)))
def test_a_plain_step_is_what_the_library_would_have_read(content: bytes) -> None:
    plain = StepReader().read(content)
    if plain is None:
        return
    head, body = plain
    if body is None:  # the rest of it may be anything
        length = int(dict(head.headers)[b"content-length"])
        content += b"?" * (length - len(content.partition(b"\r\n\r\n")[2]))
    read = Read(content)
    assert read.messages == 1
    assert read.parser.get_method() == b"POST"
    assert read.parser.get_http_version() == "1.1"
    assert read.parser.should_keep_alive()
    assert not read.parser.should_upgrade()
    assert read.url == b"/v1/sessions/%b/steps" % head.session_id.encode()
    assert read.headers == head.headers
    assert body is None or read.body == body


@given(contents=st.lists(st.one_of(requests, mutated(requests)), max_size=5))
def test_what_a_reader_remembers_changes_nothing_but_the_length(contents: list[bytes]) -> None:
    reader = StepReader()
    for content in contents:
        found, fresh = reader.read(content), StepReader().read(content)
        assert (found is None) == (fresh is None)
        if found is not None and fresh is not None:
            lengths = {b"content-length": b""}
            assert found[1] == fresh[1]
            assert found[0].session_id == fresh[0].session_id
            assert dict(found[0].headers) | lengths == dict(fresh[0].headers) | lengths
