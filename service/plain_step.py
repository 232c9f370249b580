"""A step over HTTP, known by its bytes: a request that has nothing in its head that asks for more than that.

Nearly all are. They need no parser, no ASGI and no task, whose work is more than that of the step
(docs/decisions/0012). What is in any way unusual is none here, and the library's to read: so nothing is taken for a
step that the library would have read as something else.
"""

import re
from typing import NamedTuple

from service.api.encodings import Encoding, of_request
from service.core.session import MAX_SESSION_ID

MAX_HEAD_BYTES, MAX_HEADERS, MAX_BODY_BYTES = 4096, 64, 65536
"""Of what is plain. For what the service takes at all see `service.http_limits`."""

_END = b"\r\n\r\n"
_LINE = rb"POST /v1/sessions/([A-Za-z0-9._~:@-]{1,%d})/steps HTTP/1\.1\r\n" % MAX_SESSION_ID
_FIELD = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[ \t]*(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?\r\n"
"""A header, with nothing but text in it: no other ends of lines, which some take for such and some do not."""
_HEAD = re.compile(b"%b((?:%b)+)\r\n" % (_LINE, _FIELD))
_PARTS = re.compile(rb"([^:\r]+):[ \t]*([^\r]*)\r\n")
_UNUSUAL = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"origin"})
_LENGTH = re.compile(rb"[0-9]{1,9}")
_REMEMBERED = 4


class Head(NamedTuple):
    """The head of a step. `headers` are as ASGI has them, and `length` is that of the body."""

    session_id: str
    length: int
    headers: list[tuple[bytes, bytes]]
    sent: Encoding
    wanted: Encoding


class StepReader:
    """Reads the steps of one connection, with a body of at most `max_body_bytes`.

    It remembers some heads: those of a client differ in little but the length of the body.
    """

    def __init__(self, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._max_body_bytes = min(max_body_bytes, MAX_BODY_BYTES)
        self._heads: dict[bytes, Head] = {}

    def read(self, data: bytes) -> tuple[Head, bytes | None] | None:
        """Return the head of a plain step, and its body, or None in its place where not all of that is here.

        Returns None where this is none, or more than one.
        """
        end = data.find(_END, 0, MAX_HEAD_BYTES) + len(_END)
        content = data[:end]
        head = self._heads.get(content)
        if head is None:
            head = read_head(content)
            if head is None or head.length > self._max_body_bytes:
                return None
            if len(self._heads) == _REMEMBERED:
                self._heads.clear()
            self._heads[content] = head
        missing = end + head.length - len(data)
        if missing < 0:
            return None
        return head, None if missing else data[end:]


def read_head(content: bytes) -> Head | None:
    """Return the head of a plain step, given up to the empty line at its end, or None where this is none."""
    found = _HEAD.fullmatch(content)
    if found is None:
        return None
    headers = [(name.lower(), value) for name, value in _PARTS.findall(found[2])]
    lengths = [value for name, value in headers if name == b"content-length"]
    if (
        len(headers) > MAX_HEADERS
        or not _UNUSUAL.isdisjoint(name for name, _ in headers)
        or any(value.lower() != b"keep-alive" for name, value in headers if name == b"connection")
        or len(lengths) != 1
        or _LENGTH.fullmatch(lengths[0]) is None
    ):
        return None
    return Head(found[1].decode(), int(lengths[0]), headers, *of_request(headers))
