"""A tenant that floods beside one that does not: ``python -m bench.fairness``. Results in ``results/fairness.json``.

Two tenants with API keys of their own send steps to one service, each from a process of its own, in an open loop. The
modest one sends a little, always the same. Its neighbour sends nothing, then a share of what the service carries, then
three times of that; in turns. What is looked at is the modest one's p99 beside a flood, over that beside a neighbour
who sends no more than can be carried: what it notices of the flood, and not of the work that the service has anyway.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from bench import machine
from bench.measure import run_beside
from bench.openloop import OpenJob, OpenLoad
from bench.reference import rows
from bench.report import WIDTH
from bench.scenarios import Wire
from bench.tenants import Served, serving

RESULTS = Path(__file__).resolve().parent / "results"
FLOODER, MODEST = "flooder", "modest"
SESSIONS = {FLOODER: 4096, MODEST: 64}
MODEST_RATE = 200.0
BESIDE_S = 3.0
"""The neighbour is there for so long before the modest one's answers are counted, and for as long after."""
TOO_MUCH = 60_000.0
"""Steps a second that no process on one core carries."""
SHARES = {"alone": 0.0, "beside 60 %": 0.6, "beside three times": 3.0}
_DRAIN_S = 30


class Kind(msgspec.Struct, frozen=True):
    """How both send: over how many connections, and how many messages may have no answer on each."""

    title: str
    wire: Wire
    connections: dict[str, int]
    in_flight: int


KINDS = {
    "rest": Kind("REST", "http", {FLOODER: 1024, MODEST: 64}, 1),
    "sockets": Kind("WS /v1/stream", "websocket", {FLOODER: 64, MODEST: 4}, 16),
}


class Point(msgspec.Struct, frozen=True):
    """What became of the modest tenant's steps, and of its neighbour's, who was offered so much of the peak."""

    beside: str
    modest: OpenLoad
    neighbour: OpenLoad | None


class Found(msgspec.Struct, frozen=True):
    kind: str
    carried_per_s: float
    points: list[Point]

    def factors(self) -> list[float]:
        """Return for each round the modest one's p99 beside a flood over that beside a neighbour at 60 %."""
        _, calm, flood = SHARES
        at = {name: [point.modest.p99_ms for point in self.points if point.beside == name] for name in SHARES}
        return [over / before for over, before in zip(at[flood], at[calm], strict=True)]


class Run(msgspec.Struct, frozen=True):
    command: str
    machine: dict[str, str]
    found: list[Found]


def offer(kind: Kind, who: str, on: Served, rate: float, warm_up_s: float, seconds: float) -> OpenLoad:
    """Offer a tenant's steps for so long, in a process of its own."""
    job = OpenJob(
        wire=kind.wire,
        url=on.server.url,
        prefix=who,
        sessions=SESSIONS[who],
        connections=kind.connections[who],
        rate=rate,
        warm_up_s=warm_up_s,
        seconds=seconds,
        rows=rows(),
        server_pid=on.server.pid,
        redis_pid=on.redis.pid,
        in_flight=kind.in_flight,
        headers=on.headers[who],
    )
    return run_beside("bench.openloop", job, OpenLoad, warm_up_s + seconds + _DRAIN_S)


def measure(kind: Kind, on: Served, beside: str, carried_per_s: float, seconds: float) -> Point:
    rate = SHARES[beside] * carried_per_s
    with ThreadPoolExecutor(1) as pool:
        neighbour = None
        if rate:
            neighbour = pool.submit(offer, kind, FLOODER, on, rate, 1.0, seconds + 2 * BESIDE_S)
        modest = offer(kind, MODEST, on, MODEST_RATE, 1.0 + BESIDE_S, seconds)
        return Point(beside, modest, None if neighbour is None else neighbour.result())


def fairness(
    only: Annotated[str, typer.Option(help=f"Some of {', '.join(KINDS)}, separated by commas.")] = ",".join(KINDS),
    seconds: Annotated[float, typer.Option(help="How long the modest tenant's answers are counted.")] = 3.0,
    rounds: Annotated[int, typer.Option(help="How often, in turns.")] = 3,
    results: Annotated[Path, typer.Option(help="Folder for the JSON.")] = RESULTS,
) -> None:
    """See what a tenant notices of another that floods."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    found = []
    for name in only.split(","):
        kind = KINDS[name]
        with serving(SESSIONS, keys=True) as on:
            flood = offer(kind, FLOODER, on, TOO_MUCH, 1.0, seconds)
            carried = flood.taken / flood.seconds
            points = [measure(kind, on, beside, carried, seconds) for _ in range(rounds) for beside in SHARES]
            described = machine.describe(on.redis.binary)
        found.append(Found(kind.title, carried, points))
        _print(found[-1], console)
    results.mkdir(parents=True, exist_ok=True)
    run = Run(" ".join(["python -m bench.fairness", *sys.argv[1:]]), described, found)
    (results / "fairness.json").write_bytes(msgspec.json.format(msgspec.json.encode(run)))
    console.print(f"written: {results / 'fairness.json'}")


def _print(found: Found, console: Console) -> None:
    columns = (
        "the modest tenant",
        "taken/s",
        "refused/s",
        "p50 ms",
        "p99 ms",
        "neighbour: taken/s",
        "refused/s",
        "p99",
    )
    table = Table(*columns, title=f"{found.kind}: {found.carried_per_s:,.0f} steps/s carried", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for point in found.points:
        table.add_row(point.beside, *_told(point.modest, 1), *_told(point.neighbour, 0))
    console.print(table)
    factors = found.factors()
    spread = f"{median(factors):.2f} ({min(factors):.2f} to {max(factors):.2f})"
    console.print(f"p99 beside a flood / beside 60 %: {spread} (bar: 2)\n")


def _told(load: OpenLoad | None, digits: int) -> list[str]:
    if load is None:
        return ["", "", ""]
    latencies = [f"{load.p50_ms:.1f}", f"{load.p99_ms:.1f}"] if digits else [f"{load.p99_ms:.1f}"]
    return [f"{load.taken / load.seconds:,.0f}", f"{load.refused / load.seconds:,.0f}", *latencies]


if __name__ == "__main__":
    typer.run(fairness)
