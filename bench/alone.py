"""Measuring one part of the service with nothing around it: a call repeated in a process of its own."""

import gc
import os
import sys
import time
from collections.abc import Callable

import msgspec
import psutil

from bench.load import Load, cpu_seconds, hand_over, percentile_ms, rss


class AloneJob(msgspec.Struct, frozen=True):
    """What to measure, for `seconds` at each batch size, on `cores` if any are named: there the service runs, too.

    With `split`, a batch is written by one script call per session, all sent at once, as a cluster needs it.
    """

    batches: list[int]
    split: bool
    model: str
    redis_socket: str
    redis_pid: int
    cores: set[int]
    warm_up_s: float
    seconds: float


def measure_alone(prepare: Callable[[AloneJob, int], Callable[[], int]]) -> None:
    """Read an `AloneJob` from standard input, write a `Load` per batch size to standard output.

    `prepare` does for one batch size whatever need not be measured, and returns the call: it does one batch, and
    returns how many nanoseconds that took. "server" in a `Load` is this process.
    """
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=AloneJob)
    if job.cores:
        os.sched_setaffinity(0, job.cores)
    gc.disable()
    loads = [_measure(prepare(job, batch), job) for batch in job.batches]
    hand_over(loads)


def _measure(call: Callable[[], int], job: AloneJob) -> Load:
    processes = {"server": [psutil.Process()], "redis": [psutil.Process(job.redis_pid)]}
    _repeat(call, job.warm_up_s)
    before, started = cpu_seconds(processes), time.perf_counter()
    latencies = _repeat(call, job.seconds)
    seconds, after = time.perf_counter() - started, cpu_seconds(processes)
    return Load(
        seconds=seconds,
        messages=len(latencies),
        p50_ms=percentile_ms(latencies, 0.5),
        p99_ms=percentile_ms(latencies, 0.99),
        p999_ms=percentile_ms(latencies, 0.999),
        cpu_s={name: after[name] - before[name] for name in processes} | {"load": 0.0},
        rss_bytes={name: rss(group) for name, group in processes.items()},
        samples=[],
    )


def _repeat(call: Callable[[], int], seconds: float) -> list[int]:
    """Call for so long; return the latencies in nanoseconds, sorted."""
    latencies = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        latencies.append(call())
    return sorted(latencies)
