"""One measurement: fresh sessions, one load generator process, answers verified."""

import json
import subprocess
import sys
import uuid
from http.client import HTTPConnection
from urllib.parse import urlsplit

import msgspec

from bench.load import DRAIN_S, Job, Load
from bench.reference import MODEL_NAME, rows, verify
from bench.scenarios import Scenario
from bench.servers import REPOSITORY, Server, Servers
from bench.traffic import session_id

LOAD_START_S = 30


class Measurement(msgspec.Struct, frozen=True):
    """What one round of one cell (scenario, subject) gave. Processor seconds are per thousand timesteps.

    `load_busy` is the share of one core that the load generator used: near 1 it would be what is measured.
    """

    scenario: str
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
    verified: int


def measure(scenario: Scenario, subject: str, servers: Servers, *, warm_up_s: float, seconds: float) -> Measurement:
    """Put a subject under a scenario's load. Raises RuntimeError where it errs, or answers wrongly."""
    server = servers.subjects[subject]
    prefix = f"{scenario.name}-{uuid.uuid4().hex[:8]}"
    if server.opens:
        _open_sessions(server, [session_id(prefix, i) for i in range(scenario.connections * scenario.sessions)])
    job = Job(
        scenario=scenario,
        url=server.url,
        greeted=server.opens and scenario.sessions == 1,
        prefix=prefix,
        rows=rows(),
        warm_up_s=warm_up_s,
        seconds=seconds,
        pids={"server": server.pid, "redis": servers.redis_pid},
    )
    load = _run(job)
    verified = verify(scenario, prefix, job.rows, load.samples) if server.forecasts else 0
    steps = load.messages * scenario.steps
    return Measurement(
        scenario=scenario.name,
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
        verified=verified,
    )


def _open_sessions(server: Server, ids: list[str]) -> None:
    address = urlsplit(server.url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=10)
    for id_ in ids:
        body = json.dumps({"model": MODEL_NAME})
        connection.request("PUT", f"/v1/sessions/{id_}", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        if response.status != 201:
            raise RuntimeError(f"a session was not opened: {response.status} {content[:300]!r}")
    connection.close()


def _run(job: Job) -> Load:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bench.load"],
            input=msgspec.json.encode(job),
            capture_output=True,
            cwd=REPOSITORY,
            timeout=LOAD_START_S + job.warm_up_s + job.seconds + DRAIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"the load generator did not end within {error.timeout:.0f} s") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise RuntimeError(f"the load generator failed: {lines[-1] if lines else done.returncode}")
    return msgspec.json.decode(done.stdout, type=Load)
