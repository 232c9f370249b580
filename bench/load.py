"""The load generator, a process of its own: reads a `Job` from standard input, writes a `Load` to standard output.

It runs on uvloop, sends prepared bytes, reads answers with compiled parsers, and takes no garbage collection while the
clock runs. Latency is from the writing of a message to the end of its answer. The processor time of the server and of
Redis is read at both ends of the measured window.
"""

import asyncio
import gc
import sys
import time

import msgspec
import psutil
import uvloop

from bench.clients import Connection, HttpConnection, Recorder, WebSocketConnection
from bench.encodings import ENCODINGS
from bench.scenarios import Scenario
from bench.traffic import Row, Sender, senders

DRAIN_S = 30
SAMPLED = 4
"""Connections whose kept answers are handed on to be verified."""


class Job(msgspec.Struct, frozen=True):
    """What to do, and whose use of the machine to measure: the server's with its children, Redis' without.

    A child of Redis rewrites its append-only file, and is soon gone. `senders` say what to send to a server that does
    not speak Conveyor's wire.
    """

    scenario: Scenario
    url: str
    greeted: bool
    prefix: str
    rows: list[Row]
    warm_up_s: float
    seconds: float
    server_pid: int
    redis_pid: int
    senders: list[Sender] | None = None


class Sample(msgspec.Struct, frozen=True):
    """The answer to a connection's message number `message`, the first being 0."""

    connection: int
    message: int
    body: bytes


class Load(msgspec.Struct, frozen=True):
    """What was measured in `seconds`. Latencies are of messages; `cpu_s` is per process, the load generator's too."""

    seconds: float
    messages: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    cpu_s: dict[str, float]
    rss_bytes: dict[str, int]
    samples: list[Sample]


async def run(job: Job) -> Load:
    """Connect, warm up, measure, and wait for the last answers."""
    recorder = Recorder()
    sending = job.senders or senders(job.scenario, job.prefix, job.rows)
    connections = [await _connect(job, sender, recorder) for sender in sending]
    processes = {
        "server": family(job.server_pid),
        "redis": [psutil.Process(job.redis_pid)],
        "load": [psutil.Process()],
    }
    gc.collect()
    gc.disable()
    for connection in connections:
        connection.start()
    await recorder.run(job.warm_up_s)

    before = cpu_seconds(processes)
    started = time.perf_counter()
    recorder.recording = True
    await recorder.run(job.seconds)
    recorder.recording = False
    seconds = time.perf_counter() - started
    after = cpu_seconds(processes)

    recorder.stopping = True
    async with asyncio.timeout(DRAIN_S):
        await asyncio.gather(*(connection.idle.wait() for connection in connections))
    latencies = sorted(recorder.latencies_ns)
    return Load(
        seconds=seconds,
        messages=len(latencies),
        p50_ms=percentile_ms(latencies, 0.5),
        p99_ms=percentile_ms(latencies, 0.99),
        p999_ms=percentile_ms(latencies, 0.999),
        cpu_s={name: after[name] - before[name] for name in processes},
        rss_bytes={name: rss(group) for name, group in processes.items()},
        samples=[sample for i, c in enumerate(connections[:SAMPLED]) for sample in _samples(i, c)],
    )


async def _connect(job: Job, sender: Sender, recorder: Recorder) -> Connection:
    scenario = job.scenario
    encoding = ENCODINGS[scenario.encoding]
    if scenario.wire == "http":
        http = HttpConnection(sender.messages, scenario.in_flight, scenario.sessions, recorder, encoding)
        await http.connect(job.url)
        return http
    socket = WebSocketConnection(sender.messages, scenario.in_flight, scenario.sessions, recorder, encoding)
    await socket.connect(job.url + sender.path, greeted=job.greeted)
    return socket


def _samples(index: int, connection: Connection) -> list[Sample]:
    first = [Sample(index, message, body) for message, body in enumerate(connection.first)]
    return [*first, Sample(index, connection.answered - 1, connection.last)]


Group = list[psutil.Process]
"""Processes that count as one."""


def family(pid: int) -> Group:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def cpu_seconds(groups: dict[str, Group]) -> dict[str, float]:
    """Return the processor time, user and system, that each group has used until now."""
    times = {name: [process.cpu_times() for process in group] for name, group in groups.items()}
    return {name: sum(time.user + time.system for time in each) for name, each in times.items()}


def rss(group: Group) -> int:
    """Return the resident memory of a group in bytes; what its processes share is counted in each."""
    return sum(process.memory_info().rss for process in group)


def percentile_ms(latencies_ns: list[int], share: float) -> float:
    """The smallest latency that `share` of all messages did not exceed."""
    if not latencies_ns:
        raise RuntimeError("no answer came while the clock ran")
    return latencies_ns[min(int(share * len(latencies_ns)), len(latencies_ns) - 1)] / 1e6


def hand_over(result: object) -> None:
    """Write what was found to standard output, for the process that started this one.

    Under PYTHONUNBUFFERED, sys.stdout.buffer is no buffer, and may write less than it is given.
    """
    with open(sys.stdout.fileno(), "wb", closefd=False) as output:
        output.write(msgspec.json.encode(result))


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    hand_over(uvloop.run(run(job)))


if __name__ == "__main__":
    main()
