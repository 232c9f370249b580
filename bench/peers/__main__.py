"""The command line: ``python -m bench.peers``. Needs the environment that ``make bench-peers`` makes."""

import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from bench import machine
from bench.effort import FULL, QUICK, Effort
from bench.goals import Comparison, Goal
from bench.load import Job, Load
from bench.measure import Measurement, measure, measurement, run_beside
from bench.pages import between_markers
from bench.peers.servers import TRITON, litserve, triton
from bench.peers.wires import WIRES, PeerWire, senders, start_sequences
from bench.process import REPOSITORY
from bench.reference import rows, verify
from bench.report import WIDTH, markdown, print_tables, tables
from bench.scenarios import CONVEYOR, SCENARIOS
from bench.servers import Servers, conveyor, redis_binary, running, temporary
from bench.summary import Failure, Round, Run

MARKER = "peers"
RESULTS = REPOSITORY / "bench" / "results"

(SCENARIO,) = (scenario for scenario in SCENARIOS if scenario.name == "rest-64")
GOALS = {TRITON: Goal(1.0, 2.0)}
COMPARISONS = [
    Comparison(f"REST-64 / {wire.title}", ("rest-64", CONVEYOR), ("rest-64", wire.name), GOALS.get(wire.server))
    for wire in WIRES
]


def peers(
    environment: Annotated[Path, typer.Option(help="Virtual environment of the peers.")] = Path(".venv-peers"),
    quick: Annotated[bool, typer.Option(help="Fewer and shorter rounds.")] = False,
    page: Annotated[Path | None, typer.Option("--markdown", help="Page whose tables are to be written anew.")] = None,
    results: Annotated[Path, typer.Option(help="Folder for the JSON.")] = RESULTS,
) -> None:
    """Measure Conveyor and other servers, 64 connections each with a session of its own."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    run = _run(QUICK if quick else FULL, environment)
    found = tables(run, COMPARISONS)
    print_tables(found, console)
    results.mkdir(parents=True, exist_ok=True)
    (results / "peers.json").write_bytes(msgspec.json.format(msgspec.json.encode(run)))
    if page is not None:
        page.write_text(between_markers(page.read_text(), MARKER, markdown(run, found)))
    for failure in run.failures:
        console.print(f"not measured: {failure.subject}, round {failure.round}: {failure.reason}")
    raise typer.Exit(1 if run.failures else 0)


def _run(effort: Effort, environment: Path) -> Run:
    started = time.monotonic()
    rounds = [Round() for _ in range(effort.rounds)]
    failures = []
    with _running(environment) as servers:
        for number, each in enumerate(rounds, 1):
            for wire in (None, *WIRES):
                try:
                    each.measurements.append(_measure(wire, servers, effort))
                except (RuntimeError, OSError) as error:
                    failures.append(Failure(SCENARIO.name, wire.name if wire else CONVEYOR, number, str(error)))
    command = " ".join(["python -m bench.peers", *sys.argv[1:]])
    described = machine.describe(redis_binary()) | _versions(environment)
    return Run(command, described, time.monotonic() - started, rounds, failures)


@contextmanager
def _running(environment: Path) -> Iterator[Servers]:
    with ExitStack() as stack:
        servers = stack.enter_context(running(subjects=()))
        folder = stack.enter_context(temporary())
        started = [
            stack.enter_context(conveyor(servers.redis, folder, servers.core, patient=True)),
            stack.enter_context(triton(environment, folder, servers.core)),
            stack.enter_context(litserve(environment, servers.redis, folder, servers.core)),
        ]
        yield Servers(servers.redis, {server.name: server for server in started}, servers.core)


def _measure(wire: PeerWire | None, servers: Servers, effort: Effort) -> Measurement:
    if wire is None:
        return measure(SCENARIO, CONVEYOR, servers, warm_up_s=effort.warm_up_s, seconds=effort.seconds)
    server = servers.subjects[wire.server]
    if server.name == TRITON:
        start_sequences(server, SCENARIO.connections)
    prefix = f"{wire.name}-{uuid.uuid4().hex[:8]}"
    job = Job(
        scenario=SCENARIO,
        url=server.url,
        greeted=False,
        prefix=prefix,
        rows=rows(),
        warm_up_s=effort.warm_up_s,
        seconds=effort.seconds,
        server_pid=server.pid,
        redis_pid=servers.redis.pid,
        senders=senders(wire, SCENARIO, prefix, rows()),
    )
    load = run_beside("bench.load", job, Load, effort.warm_up_s + effort.seconds)
    verified = verify(SCENARIO, prefix, job.rows, load.samples, read=wire.read)
    return measurement(SCENARIO.name, SCENARIO.title, wire.name, load, SCENARIO.steps, verified)


def _versions(environment: Path) -> dict[str, str]:
    names = ("nvidia_pytriton", "litserve")
    found = [path.name for name in names for path in environment.glob(f"lib/*/site-packages/{name}-*.dist-info")]
    return dict(name.removesuffix(".dist-info").split("-", 1) for name in found)


if __name__ == "__main__":
    typer.run(peers)
