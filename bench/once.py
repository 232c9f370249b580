"""Requests that are each sent once, over connections that are kept alive: what a crowd does that comes or goes."""

import asyncio
from collections.abc import Iterable, Iterator
from time import perf_counter, perf_counter_ns
from urllib.parse import urlsplit

import msgspec
from httptools import HttpResponseParser

from bench.load import percentile_ms

_WITHIN_S = 120


class Sent(msgspec.Struct, frozen=True):
    """How many requests were answered in `seconds`, and how long each took."""

    count: int
    seconds: float
    p50_ms: float
    p99_ms: float


async def send_once(
    url: str, requests: Iterable[bytes], connections: int, status: int, unwanted: bytes | None = None
) -> Sent:
    """Send all requests over so many connections, one in flight on each.

    Raises RuntimeError where one is not answered with `status`, or with something that has `unwanted` in it.
    """
    host, port = urlsplit(url).netloc.split(":")
    loop = asyncio.get_running_loop()
    waiting = iter(requests)
    latencies_ns: list[int] = []
    made = [_Connection(waiting, status, unwanted, latencies_ns, loop.create_future()) for _ in range(connections)]
    transports = [(await loop.create_connection(lambda each=each: each, host, int(port)))[0] for each in made]
    started = perf_counter()
    try:
        for each in made:
            each.send_next()
        async with asyncio.timeout(_WITHIN_S):
            await asyncio.gather(*(each.done for each in made))
    finally:
        for transport in transports:
            transport.abort()
        await asyncio.sleep(0)  # a transport lets its socket go in the turn after
    seconds = perf_counter() - started
    latencies_ns.sort()
    return Sent(len(latencies_ns), seconds, percentile_ms(latencies_ns, 0.5), percentile_ms(latencies_ns, 0.99))


class _Connection(asyncio.Protocol):
    """Takes requests from `waiting`, which all connections share; `done` when there is none left."""

    def __init__(
        self,
        waiting: Iterator[bytes],
        status: int,
        unwanted: bytes | None,
        latencies_ns: list[int],
        done: "asyncio.Future[None]",
    ) -> None:
        self._waiting = waiting
        self._status = status
        self._unwanted = unwanted
        self._body = bytearray()
        self._latencies_ns = latencies_ns
        self._parser = HttpResponseParser(self)
        self._started = 0
        self.done = done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send_next(self) -> None:
        request = next(self._waiting, None)
        if request is None:
            self.done.set_result(None)
            return
        self._started = perf_counter_ns()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, part: bytes) -> None:
        if self._unwanted is not None:
            self._body += part

    def on_message_complete(self) -> None:
        self._latencies_ns.append(perf_counter_ns() - self._started)
        at = -1 if self._unwanted is None else self._body.find(self._unwanted)
        if (status := self._parser.get_status_code()) != self._status:
            self._fail(f"a request was answered with {status}, and not with {self._status}")
        elif at >= 0:
            self._fail(f"an answer is not as it should be: {bytes(self._body[at : at + 300])!r}")
        else:
            self._body.clear()
            self.send_next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("the server closed a connection on which it owed an answer")

    def _fail(self, reason: str) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(reason))
