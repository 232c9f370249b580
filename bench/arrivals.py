"""Connections for an open loop: messages leave when they are due, whatever has become of those before.

At three times what a service can carry, the load generator must carry three times as much itself, so these do without a
client library: frames and requests are bytes made before the clock runs, and answers are cut out of what comes.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import NamedTuple
from urllib.parse import urlsplit

OUTPUTS = b'"outputs"'
"""Stands in an answer once for each step that was taken."""
OVERLOADED = b'"code":"overloaded"'
"""Stands in it once for each that was refused for want of room."""

_TEXT, _CLOSE = 0x81, 0x88
_MASKED, _TWO_BYTES = 0x80, 126
_NO_MASK = bytes(4)  # a client has to mask; with nothing, if it likes
_HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{further}\r\n"
)
_LENGTH = re.compile(rb"content-length: (\d+)\r\n")
_RETRY_AFTER = b"\r\nretry-after: "


class Answered(NamedTuple):
    """An answer to a message that was due at `due_ns`: so many of its steps were taken, so many refused."""

    due_ns: int
    taken: int
    refused: int


OnAnswered = Callable[["Line", Answered], None]


class Line(asyncio.Protocol):
    """A connection.

    `owed` is the count of messages without an answer; `failed` says what went wrong, if anything; `ended` is set when
    nothing more is to be expected of it.
    """

    def __init__(self, on_answered: OnAnswered, *, greeted: bool = False) -> None:
        self._on_answered = on_answered
        self._greetings = int(greeted)
        self._due: deque[int] = deque()
        self._buffer = b""
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport
        self._upgraded = False
        self._settled: asyncio.Future[None] | None = None
        self.ended = asyncio.Event()
        self.closed = False
        self.failed: str | None = None

    @property
    def owed(self) -> int:
        return len(self._due)

    async def connect(self, url: str, path: str, further: str = "") -> None:
        """Connect, and wait until messages may be sent. `further` headers end in CR LF each."""
        host, port = urlsplit(url).netloc.split(":")
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: self, host, int(port))
        self._transport = transport
        self.begin(path, f"{host}:{port}", further)
        await asyncio.wait_for(self._ready, 30)

    def send(self, messages: list[bytes], due_ns: list[int]) -> None:
        self._due.extend(due_ns)
        self._transport.write(b"".join(messages))

    async def settled(self) -> None:
        """Return when nothing is owed any more."""
        while self._due and not self.ended.is_set():
            self._settled = asyncio.get_running_loop().create_future()
            await self._settled

    def close(self) -> None:
        self._transport.close()

    def begin(self, path: str, host: str, further: str) -> None:
        raise NotImplementedError

    def answered(self, body: bytes, *, refused: int = -1) -> None:
        taken = body.count(OUTPUTS)
        refused = body.count(OVERLOADED) if refused < 0 else refused
        if not taken + refused or not self._due:
            self.failed = f"an answer is not as it should be: {body[:300]!r}"
            self._end()
            return
        self._on_answered(self, Answered(self._due.popleft(), taken, refused))
        if self._settled is not None and not self._due:
            self._settle()

    def _connected(self) -> None:
        if not self._ready.done():  # nobody may be waiting any more
            self._ready.set_result(None)

    def _settle(self) -> None:
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)

    def _end(self) -> None:
        self.ended.set()
        self._settle()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._end()
        if not self._ready.done():
            self._ready.set_exception(ConnectionError(f"the server closed the connection: {self._buffer[:300]!r}"))
        elif self._due and self.failed is None:
            self.failed = "the server closed a connection on which it owed an answer"


class SocketLine(Line):
    """A WebSocket."""

    def begin(self, path: str, host: str, further: str) -> None:
        self._transport.write(_HANDSHAKE.format(path=path, host=host, further=further).encode())

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        at, size = 0, len(data)
        if not self._upgraded:
            if (end := data.find(b"\r\n\r\n")) < 0 or not data.startswith(b"HTTP/1.1 101"):
                self._buffer = data
                return
            at = end + 4
            self._upgraded = True
            if not self._greetings:
                self._connected()
        while size - at >= 2:
            length, start = data[at + 1], at + 2
            if length >= _TWO_BYTES:
                start = at + (4 if length == _TWO_BYTES else 10)
                if size < start:
                    break
                length = int.from_bytes(data[at + 2 : start])
            if size < start + length:
                break
            self._take(data[at], data[start : start + length])
            at = start + length
        self._buffer = data[at:]

    def _take(self, first: int, content: bytes) -> None:
        if first == _CLOSE:
            self.closed = True
            self._end()
        elif first == _TEXT and self._greetings:
            self._greetings -= 1
            self._connected()
        elif first == _TEXT:
            self.answered(content)


class RequestLine(Line):
    """HTTP/1.1, kept alive; one request at a time. A refusal must be a 429 that says when to come back."""

    def begin(self, path: str, host: str, further: str) -> None:
        self._connected()

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        end = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data) if end >= 0 else None
        if length is None or len(data) < end + 4 + int(length[1]):
            self._buffer = data
            return
        self._buffer = b""
        if data.startswith(b"HTTP/1.1 429") and _RETRY_AFTER in data:
            self.answered(b"", refused=1)
        else:
            self.answered(data[end + 4 :])


def frame(content: bytes) -> bytes:
    """Return a message as a client's frame."""
    size = len(content)
    head = bytes((_TEXT, _MASKED | size)) if size < _TWO_BYTES else _MEDIUM.pack(_TEXT, _MASKED | _TWO_BYTES, size)
    return head + _NO_MASK + content


_MEDIUM = Struct("!BBH")
