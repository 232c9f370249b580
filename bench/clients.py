"""Connections that do nothing but send prepared bytes and take the time: the load generator must not be the limit."""

import asyncio
from collections import deque
from time import perf_counter_ns
from urllib.parse import urlsplit

from httptools import HttpResponseParser
from picows import WSFrame, WSListener, WSTransport, ws_connect

from bench.encodings import ENCODINGS, Encoding

KEPT_FIRST = 8
"""So many of a connection's first answers are kept to be verified, and its last one."""

_OK = 200


class Recorder:
    """What all connections share: whether the clock runs, how long answers took, what went wrong first."""

    def __init__(self) -> None:
        self.recording = False
        self.stopping = False
        self.latencies_ns: list[int] = []
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, reason: str) -> None:
        if not self._failed.done():
            self._failed.set_exception(RuntimeError(reason))

    async def run(self, seconds: float) -> None:
        """Let the connections work. Raises what went wrong on the first of them that could not."""
        await asyncio.wait({self._failed}, timeout=seconds)
        if self._failed.done():
            self._failed.result()


class Connection:
    """Keeps `in_flight` of its messages unanswered, until the recorder says to stop; `idle` then tells of the end.

    Every answer must hold `outputs` outputs: an error, or an answer cut short, holds fewer.
    """

    def __init__(
        self,
        messages: list[bytes],
        in_flight: int,
        outputs: int,
        recorder: Recorder,
        encoding: Encoding = ENCODINGS["json"],
    ) -> None:
        self._encoding = encoding
        self._messages = messages
        self._in_flight = in_flight
        self._outputs = outputs
        self._recorder = recorder
        self._started: deque[int] = deque()
        self._next = 0
        self.answered = 0
        self.first: list[bytes] = []
        self.last = b""
        self.idle = asyncio.Event()

    def start(self) -> None:
        for _ in range(self._in_flight):
            self._send_next()

    def write(self, message: bytes) -> None:
        raise NotImplementedError

    def _send_next(self) -> None:
        message = self._messages[self._next]
        self._next = (self._next + 1) % len(self._messages)
        self._started.append(perf_counter_ns())
        self.write(message)

    def on_answer(self, body: bytes) -> None:
        latency = perf_counter_ns() - self._started.popleft()
        recorder = self._recorder
        if not recorder.stopping:
            self._send_next()  # the server is not to wait while its answer is looked at
        if recorder.recording:
            recorder.latencies_ns.append(latency)
        if body.count(self._encoding.marker) != self._outputs:
            recorder.fail(f"an answer is not as it should be: {body[:300]!r}")
            return
        self.answered += 1
        self.last = body
        if self.answered <= KEPT_FIRST:
            self.first.append(body)
        if recorder.stopping and not self._started:
            self.idle.set()

    def on_lost(self) -> None:
        if self._started:
            self._recorder.fail("the server closed a connection on which it owed an answer")


class HttpConnection(Connection, asyncio.Protocol):
    """HTTP/1.1, kept alive."""

    async def connect(self, url: str) -> None:
        host, port = urlsplit(url).netloc.split(":")
        loop = asyncio.get_running_loop()
        self._parser = HttpResponseParser(self)
        self._body: list[bytes] = []
        self._transport, _ = await loop.create_connection(lambda: self, host, int(port))

    def write(self, message: bytes) -> None:
        self._transport.write(message)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, part: bytes) -> None:
        self._body.append(part)

    def on_message_complete(self) -> None:
        body = b"".join(self._body)
        self._body.clear()
        if (status := self._parser.get_status_code()) != _OK:
            self._recorder.fail(f"the server answered {status}: {body[:300]!r}")
        else:
            self.on_answer(body)

    def connection_lost(self, exc: Exception | None) -> None:
        self.on_lost()


class WebSocketConnection(Connection, WSListener):
    """A WebSocket. With `greeted`, the server's first message is no answer."""

    async def connect(self, url: str, *, greeted: bool) -> None:
        self._greeted = asyncio.Event()
        if not greeted:
            self._greeted.set()
        spoken = self._encoding.subprotocol
        headers = {"Sec-WebSocket-Protocol": spoken} if spoken else None
        self._transport, _ = await ws_connect(lambda: self, url.replace("http", "ws", 1), extra_headers=headers)
        await asyncio.wait_for(self._greeted.wait(), timeout=10)

    def write(self, message: bytes) -> None:
        self._transport.send(self._encoding.frame, message)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is not self._encoding.frame:
            self._recorder.fail(f"the server sent a {frame.msg_type.name} frame: {frame.get_payload_as_bytes()!r}")
        elif not self._greeted.is_set():
            self._greeted.set()
        else:
            self.on_answer(frame.get_payload_as_bytes())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.on_lost()
