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
_FIELD = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n"
"""A header, with nothing but text in it: no other ends of lines, which some take for such and some do not."""
_HEAD = re.compile(b"%b((?:%b)+)\r\n" % (_LINE, _FIELD))
_PARTS = re.compile(rb"([^:\r]+):[ \t]*([^\r]*)\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})\r\n", re.IGNORECASE)
_MAX_DIGITS = 9
_UNUSUAL = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"proxy-connection", b"origin"})


class Head(NamedTuple):
    """The head of a step. `headers` are as ASGI has them, but the length in them may be that of an earlier one."""

    session_id: str
    headers: list[tuple[bytes, bytes]]
    sent: Encoding
    wanted: Encoding


class _Known(NamedTuple):
    """A head, and the bytes before and behind the digits of its body's length."""

    head: Head
    before: bytes
    behind: bytes

    def length(self, data: bytes) -> bytes | None:
        """Return the digits in data that begin like this otherwise, or None where they do not."""
        if not data.startswith(self.before):
            return None
        start = len(self.before)
        stop = data.find(b"\r", start, start + _MAX_DIGITS + 1)
        digits = data[start:stop]
        return digits if stop > 0 and digits.isdigit() and data.startswith(self.behind, stop) else None


class StepReader:
    """Reads the steps of one connection, with a body of at most `max_body_bytes`.

    It remembers the head that it read last: a client's next one differs in little but the length of the body.
    """

    def __init__(self, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._max_body_bytes = min(max_body_bytes, MAX_BODY_BYTES)
        self._known: _Known | None = None

    def read(self, data: bytes) -> tuple[Head, bytes | None] | None:
        """Return the head of a plain step, and its body, or None in its place where not all of that is here.

        Returns None where this is none, or more than one.
        """
        known = self._known
        if known is None or (digits := known.length(data)) is None:
            end = data.find(_END, 0, MAX_HEAD_BYTES) + len(_END)
            found = _LENGTH.search(data, 0, end)
            head = read_head(data[:end])
            if found is None or head is None:
                return None
            digits = found[1]
            known = self._known = _Known(head, data[: found.start(1)], data[found.end(1) : end])
        start, length = len(known.before) + len(digits) + len(known.behind), int(digits)
        missing = start + length - len(data)
        if missing < 0 or length > self._max_body_bytes:
            return None
        return known.head, None if missing else data[start:]


def read_head(content: bytes) -> Head | None:
    """Return the head of a plain step, given up to the empty line at its end, or None where this is none."""
    found = _HEAD.fullmatch(content)
    if found is None or b" \r" in content or b"\t\r" in content:  # what ends in white space is read in several ways
        return None
    headers = [(name.lower(), value) for name, value in _PARTS.findall(found[2])]
    names = [name for name, _ in headers]
    if (
        len(headers) > MAX_HEADERS
        or not _UNUSUAL.isdisjoint(names)
        or names.count(b"content-length") != 1
        or any(value.lower() != b"keep-alive" for name, value in headers if name == b"connection")
    ):
        return None
    return Head(found[1].decode(), headers, *of_request(headers))
