"""One measurement: fresh sessions, one load generator process, answers verified."""

import asyncio
import subprocess
import sys
import uuid
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from bench import population
from bench.alone import AloneJob
from bench.load import DRAIN_S, Job, Load
from bench.once import send_once
from bench.page_cache import let_go
from bench.process import REPOSITORY
from bench.reference import MODEL, MODEL_NAME, rows, verify
from bench.scenarios import ENGINE, PARTS, REDIS, REDIS_SPLIT, Scenario
from bench.servers import Server, Servers
from bench.traffic import request, session_id

LOAD_START_S = 30
_OPENERS = 16
"""Connections over which sessions are opened before the clock runs."""

T = TypeVar("T")


class Measurement(msgspec.Struct, frozen=True):
    """What one round of one cell (scenario, subject) gave.

    Processor seconds are per thousand timesteps, `answer_bytes` per timestep, without the protocol's headers.

    `load_busy` is the share of one core that the load generator used: near 1 it would be what is measured.
    """

    scenario: str
    title: str
    subject: str
    steps_per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    server_cpu_s: float
    redis_cpu_s: float
    server_rss_mb: float
    redis_rss_mb: float
    load_busy: float
    answer_bytes: float
    verified: int


def measure(
    scenario: Scenario, subject: str, servers: Servers, *, warm_up_s: float, seconds: float, prefix: str | None = None
) -> Measurement:
    """Put a subject under a scenario's load. Raises RuntimeError where it errs, or answers wrongly.

    The sessions of a scenario with a population are there already, and called `prefix`.
    """
    server = servers.subjects[subject]
    seeded = prefix is not None
    prefix = prefix or f"{scenario.name}-{uuid.uuid4().hex[:8]}"
    if server.opens and not seeded:
        open_sessions(server, [session_id(prefix, i) for i in range(scenario.connections * scenario.sessions)])
    job = Job(
        scenario=scenario,
        url=server.url,
        greeted=server.opens and not scenario.many,
        prefix=prefix,
        rows=rows(),
        warm_up_s=warm_up_s,
        seconds=seconds,
        server_pid=server.pid,
        redis_pid=servers.redis.pid,
    )
    let_go(servers.redis.folder)
    load = run_beside("bench.load", job, Load, warm_up_s + seconds)
    verified = 0
    if seeded:
        verified = population.verify(scenario, prefix, job.rows, load.samples)
    elif server.forecasts:
        verified = verify(scenario, prefix, job.rows, load.samples, server.model)
    return measurement(scenario.name, scenario.title, subject, load, scenario.steps, verified)


def measure_alone(
    part: str, servers: Servers, *, warm_up_s: float, seconds: float, batches: Sequence[int] | None = None
) -> list[Measurement]:
    """Measure a part of the service alone, at each batch size. Raises RuntimeError where it fails."""
    batches = batches or PARTS[part]
    job = AloneJob(
        batches=list(batches),
        split=part == REDIS_SPLIT,
        model=str(next((server.model for server in servers.subjects.values()), MODEL)),
        redis_socket=str(servers.redis.socket),
        redis_pid=servers.redis.pid,
        cores=servers.core,
        warm_up_s=warm_up_s,
        seconds=seconds,
    )
    let_go(servers.redis.folder)
    module = f"bench.baselines.{ENGINE if part == ENGINE else REDIS}"
    loads = run_beside(module, job, list[Load], len(batches) * (warm_up_s + seconds))
    return [
        measurement(f"alone-{batch}", f"alone, batch of {batch}", part, load, batch, 0)
        for batch, load in zip(batches, loads, strict=True)
    ]


def measure_script(scenario: Scenario, servers: Servers, warm_up_s: float, seconds: float) -> Measurement:
    """Measure the commit script alone at a scenario's sessions a message. Raises RuntimeError where it fails."""
    batches = (scenario.sessions,)
    (found,) = measure_alone(REDIS, servers, warm_up_s=warm_up_s, seconds=seconds, batches=batches)
    return msgspec.structs.replace(found, scenario=scenario.script, title=f"{found.title}, beside {scenario.name}")


def measurement(name: str, title: str, subject: str, load: Load, per_message: int, verified: int) -> Measurement:
    """Make of a load, each of whose messages carried so many timesteps, the figures of a cell."""
    steps = load.messages * per_message
    return Measurement(
        scenario=name,
        title=title,
        subject=subject,
        steps_per_s=steps / load.seconds,
        p50_ms=load.p50_ms,
        p99_ms=load.p99_ms,
        p999_ms=load.p999_ms,
        server_cpu_s=load.cpu_s["server"] / steps * 1000,
        redis_cpu_s=load.cpu_s["redis"] / steps * 1000,
        server_rss_mb=load.rss_bytes["server"] / 2**20,
        redis_rss_mb=load.rss_bytes["redis"] / 2**20,
        load_busy=load.cpu_s["load"] / load.seconds,
        answer_bytes=_mean_length(load) / per_message,
        verified=verified,
    )


def _mean_length(load: Load) -> float:
    return sum(len(sample.body) for sample in load.samples) / len(load.samples) if load.samples else 0.0


def open_sessions(server: Server, ids: Sequence[str]) -> None:
    """Open sessions of the demo model. Raises RuntimeError where one is not opened."""
    body = msgspec.json.encode({"model": MODEL_NAME})
    opened = [request(f"/v1/sessions/{id_}", body, method="PUT") for id_ in ids]
    asyncio.run(send_once(server.url, opened, min(_OPENERS, len(opened)), 201))


def run_beside(module: str, job: msgspec.Struct, result: type[T], seconds: float) -> T:
    """Run a module that reads a job and writes a result, in a process of its own; it works for some `seconds`."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", module],
            input=msgspec.json.encode(job),
            capture_output=True,
            cwd=REPOSITORY,
            timeout=LOAD_START_S + seconds + DRAIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{module} did not end within {error.timeout:.0f} s") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise RuntimeError(f"{module} failed: {lines[-1] if lines else done.returncode}")
    return msgspec.json.decode(done.stdout, type=result)
