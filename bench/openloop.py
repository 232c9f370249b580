"""An open loop, a process of its own: reads an `OpenJob` from standard input, writes an `OpenLoad` to standard output.

Messages are due at times drawn beforehand (a Poisson process of the given rate), and are sent then. Latency counts from
the time at which a message was due, so that one that had to wait for the load generator is not flattered.

A connection has so many messages in flight at most, for a sensor whose reading has not been answered does not send the
next one. A message that finds no connection free when it is due is dropped, and counted: at a multiple of what a
service can do a backlog of the load generator's would grow without end, and its length be all that is measured.
"""

import asyncio
import gc
import random
import sys
import time
from collections import deque

import msgspec
import psutil
import uvloop

from bench.arrivals import Answered, Line, RequestLine, SocketLine, frame
from bench.encodings import ENCODINGS
from bench.load import cpu_seconds, family, hand_over, percentile_ms, rss
from bench.scenarios import Wire
from bench.traffic import Row, request, row_at, session_id

TICK_S = 0.001
_AT_A_TIME = 4
"""Sockets that are written to in one tick; the next ones in the next."""
DRAIN_S = 20
_MESSAGES = 8192
"""Distinct messages that are made beforehand, at most."""


class OpenJob(msgspec.Struct, frozen=True):
    """Send `rate` messages a second, each a step of each of `steps` of the sessions, over `connections`.

    On one of them `in_flight` messages at most have no answer yet; of requests, one. The sessions are called `prefix`
    and a number. The processes are those whose use of the machine is measured.
    """

    wire: Wire
    url: str
    prefix: str
    sessions: int
    connections: int
    rate: float
    warm_up_s: float
    seconds: float
    rows: list[Row]
    server_pid: int
    redis_pid: int
    steps: int = 1
    in_flight: int = 1024
    headers: str = ""


class OpenLoad(msgspec.Struct, frozen=True):
    """What was measured: counts are of steps, latencies of messages, those taken whole and those refused in part.

    `unsent` are steps that found no connection free.
    """

    seconds: float
    offered: int
    taken: int
    refused: int
    unsent: int
    p50_ms: float
    p99_ms: float
    refused_p50_ms: float
    refused_p99_ms: float
    cpu_s: dict[str, float]
    rss_bytes: dict[str, int]


class _Tally:
    def __init__(self) -> None:
        self.recording = False
        self.taken = self.refused = 0
        self.latencies_ns: list[int] = []
        self.refusals_ns: list[int] = []

    def answered(self, answer: Answered) -> None:
        if not self.recording:
            return
        self.taken += answer.taken
        self.refused += answer.refused
        (self.refusals_ns if answer.refused else self.latencies_ns).append(time.perf_counter_ns() - answer.due_ns)


class OpenLoop:
    """Sends messages as they fall due. With one request at a time on a connection, some may have to wait for one."""

    def __init__(self, job: OpenJob, tally: _Tally) -> None:
        self._job = job
        self._tally = tally
        self._messages = _messages(job)
        self._next = 0
        self._random = random.Random(1)
        self._lines: list[Line] = []
        self._free: deque[Line] = deque()
        self._in_flight = 1 if job.wire == "http" else job.in_flight

    async def connect(self) -> None:
        for _ in range(self._job.connections):
            line = (RequestLine if self._job.wire == "http" else SocketLine)(self._on_answered)
            await line.connect(self._job.url, "/v1/stream", self._job.headers)
            self._lines.append(line)
        self._free.extend(self._lines)

    async def run(self, seconds: float) -> tuple[int, int]:
        """Send for so long; return how many messages fell due, and how many of them found no connection free.

        Raises RuntimeError for the first that went wrong.
        """
        end = due = time.perf_counter_ns()
        end += int(seconds * 1e9)
        gap_ns = 1e9 / self._job.rate
        fallen = sent = 0
        while (now := time.perf_counter_ns()) < end:
            dues = []
            while due <= now:
                dues.append(int(due))
                due += self._random.expovariate(1) * gap_ns
            fallen += len(dues)
            sent += self._send(dues)
            await asyncio.sleep(TICK_S)
        self.check()
        return fallen, fallen - sent

    def check(self) -> None:
        for line in self._lines:
            if line.failed is not None:
                raise RuntimeError(line.failed)

    async def drain(self) -> None:
        """Wait for the last answers."""
        deadline = time.monotonic() + DRAIN_S
        while any(line.owed for line in self._lines):
            self.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{sum(line.owed for line in self._lines)} answers never came")
            await asyncio.sleep(0.01)

    def _send(self, dues: list[int]) -> int:
        """Deal out what is due to a few connections, whose turn it is; return how much of it that was.

        What goes to one of them goes in one write.
        """
        share = -(-len(dues) // _AT_A_TIME)
        sent = 0
        while sent < len(dues) and self._free:
            line = self._free.popleft()
            part = dues[sent : sent + min(share, self._in_flight - line.owed)]
            line.send([self._message() for _ in part], part)
            sent += len(part)
            if line.owed < self._in_flight:
                self._free.append(line)
        return sent

    def _on_answered(self, line: Line, answer: Answered) -> None:
        self._tally.answered(answer)
        if line.owed == self._in_flight - 1:
            self._free.append(line)

    def _message(self) -> bytes:
        self._next = (self._next + 1) % len(self._messages)
        return self._messages[self._next]


def _messages(job: OpenJob) -> list[bytes]:
    """Return messages that go round the sessions in a drawn order."""
    encode = ENCODINGS["json"].encode
    order = list(range(job.sessions))
    random.Random(2).shuffle(order)
    made = []
    for number in range(max(1, min(job.sessions // job.steps, _MESSAGES))):
        named = [order[(number * job.steps + i) % job.sessions] for i in range(job.steps)]
        steps = [{"session_id": session_id(job.prefix, i), "x": row_at(job.rows, i, 0)} for i in named]
        if job.wire == "http":
            path = f"/v1/sessions/{steps[0]['session_id']}/steps"
            made.append(request(path, encode({"x": steps[0]["x"]}), further=job.headers))
        else:
            made.append(frame(encode(steps if job.steps > 1 else steps[0])))
    return made


async def run(job: OpenJob) -> OpenLoad:
    tally = _Tally()
    loop = OpenLoop(job, tally)
    await loop.connect()
    groups = {
        "server": family(job.server_pid),
        "redis": [psutil.Process(job.redis_pid)],
        "load": [psutil.Process()],
    }
    gc.collect()
    gc.disable()
    await loop.run(job.warm_up_s)
    before, started = cpu_seconds(groups), time.perf_counter()
    tally.recording = True
    fallen, unsent = await loop.run(job.seconds)
    tally.recording = False
    seconds = time.perf_counter() - started
    after, held = cpu_seconds(groups), {name: rss(group) for name, group in groups.items()}
    await loop.drain()
    taken, refused = sorted(tally.latencies_ns), sorted(tally.refusals_ns)
    return OpenLoad(
        seconds=seconds,
        offered=fallen * job.steps,
        taken=tally.taken,
        refused=tally.refused,
        unsent=unsent * job.steps,
        p50_ms=percentile_ms(taken, 0.5),
        p99_ms=percentile_ms(taken, 0.99),
        refused_p50_ms=percentile_ms(refused, 0.5) if refused else 0.0,
        refused_p99_ms=percentile_ms(refused, 0.99) if refused else 0.0,
        cpu_s={name: after[name] - before[name] for name in groups},
        rss_bytes=held,
    )


def main() -> None:
    hand_over(uvloop.run(run(msgspec.json.decode(sys.stdin.buffer.read(), type=OpenJob))))


if __name__ == "__main__":
    main()
