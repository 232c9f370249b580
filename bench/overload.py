"""More than can be carried: ``python -m bench.overload``. Results in ``results/overload.json``.

For each way to send, in one run on one service: the peak (an open loop of growing rate, until no more is taken), then
in turns 70 % of it, the rate that gave it, and three times of it. What is looked at are ratios of what was measured
seconds apart: on a machine whose speed comes and goes, the most of a sweep is not to be had a second time.

A fleet is so many sensors that each wait for an answer before they send again. Those that are refused do not wait for
as long as they are told, but send again at once: that is the worst that well-meaning clients can do.
"""

import sys
from collections.abc import Iterator
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
from service.core.access import ANYBODY

RESULTS = Path(__file__).resolve().parent / "results"
TENANT = ANYBODY.tenant
SESSIONS = 4096
FLEET = 1024
"""Steps that may be unanswered at a time, of sensors that each wait for their answer."""
FIRST_RATE = 4000.0
GROWTH = 1.25
CALM, TIMES = 0.7, 3.0
_DRAIN_S = 30


class Kind(msgspec.Struct, frozen=True):
    """A way to send. `steps` go in one message, and `in_flight` messages at most have no answer on a connection.

    With `keys` who asks has to say who they are.
    """

    title: str
    wire: Wire
    connections: int
    steps: int = 1
    in_flight: int = 1
    keys: bool = False


def kinds(fleet: int = FLEET) -> dict[str, Kind]:
    """Return the ways in which a fleet of so many sensors, each with one step unanswered at most, may send."""
    sockets = "WS /v1/stream, 64 sockets"
    frames = f"{sockets}, 16 sessions a frame"
    return {
        "rest": Kind(f"REST, {fleet} connections", "http", fleet),
        "keys": Kind(f"REST, {fleet} connections, with an API key", "http", fleet, keys=True),
        "sockets": Kind(f"{sockets}, {fleet // 64} in flight", "websocket", 64, in_flight=fleet // 64),
        "frames": Kind(f"{frames}, {fleet // 1024} in flight", "websocket", 64, steps=16, in_flight=fleet // 1024),
    }


class Point(msgspec.Struct, frozen=True):
    """What became of a rate, in steps/s, that was offered."""

    rate: float
    load: OpenLoad

    @property
    def taken_per_s(self) -> float:
        return self.load.taken / self.load.seconds

    @property
    def taken_per_cpu_s(self) -> float:
        """On a machine that is shared, what a second of processor time gave tells more than what a second gave."""
        return self.load.taken / self.load.cpu_s["server"]


class Overload(msgspec.Struct, frozen=True):
    """All points of one kind; those of `calm`, `peak` and `over` were measured in turns."""

    kind: str
    sweep: list[Point]
    calm: list[Point]
    peak: list[Point]
    over: list[Point]


class Run(msgspec.Struct, frozen=True):
    command: str
    machine: dict[str, str]
    found: list[Overload]


def offer(kind: Kind, on: Served, rate: float, seconds: float) -> Point:
    """Offer `rate` steps a second for so long."""
    job = OpenJob(
        wire=kind.wire,
        url=on.server.url,
        prefix=TENANT,
        sessions=SESSIONS,
        connections=kind.connections,
        rate=rate / kind.steps,
        warm_up_s=1.0,
        seconds=seconds,
        rows=rows(),
        server_pid=on.server.pid,
        redis_pid=on.redis.pid,
        steps=kind.steps,
        in_flight=kind.in_flight,
        headers=on.headers[TENANT],
    )
    return Point(rate, run_beside("bench.openloop", job, OpenLoad, seconds + _DRAIN_S))


def _sweep(kind: Kind, on: Served, seconds: float) -> Iterator[Point]:
    """Offer more and more, until a quarter more was twice no gain."""
    rate, best, without_gain = FIRST_RATE, 0.0, 0
    while without_gain < 2:
        point = offer(kind, on, rate, seconds)
        yield point
        without_gain = 0 if point.taken_per_s > 1.02 * best else without_gain + 1
        best = max(best, point.taken_per_s)
        rate *= GROWTH


def overload(
    only: Annotated[str, typer.Option(help=f"Some of {', '.join(kinds())}, separated by commas.")] = ",".join(kinds()),
    fleet: Annotated[int, typer.Option(help="Sensors: a multiple of 1024.")] = FLEET,
    rounds: Annotated[int, typer.Option(help="How often 70 %, the peak and three times are measured, in turns.")] = 3,
    seconds: Annotated[float, typer.Option(help="How long each rate is offered.")] = 3.0,
    results: Annotated[Path, typer.Option(help="Folder for the JSON.")] = RESULTS,
) -> None:
    """Send more than the service can do, and see what becomes of it."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    found = []
    for name in only.split(","):
        kind = kinds(fleet)[name]
        with serving({TENANT: SESSIONS}, keys=kind.keys) as on:
            sweep = list(_sweep(kind, on, seconds))
            best = max(sweep, key=lambda point: point.taken_per_s)
            rates = CALM * best.taken_per_s, best.rate, TIMES * best.taken_per_s
            turns = [[offer(kind, on, rate, seconds) for rate in rates] for _ in range(rounds)]
            described = machine.describe(on.redis.binary)
        calm, peak, over = map(list, zip(*turns, strict=True))
        found.append(Overload(kind.title, sweep, calm, peak, over))
        _print(found[-1], console)
    run = Run(" ".join(["python -m bench.overload", *sys.argv[1:]]), described, found)
    results.mkdir(parents=True, exist_ok=True)
    (results / "overload.json").write_bytes(msgspec.json.format(msgspec.json.encode(run)))
    console.print(f"written: {results / 'overload.json'}")


def _print(found: Overload, console: Console) -> None:
    columns = ("offered/s", "taken/s", "refused/s", "p50 ms", "p99 ms", "refused p50", "p99", "unsent", "CPU", "MiB")
    table = Table(*columns, title=found.kind, title_justify="left")
    for column in table.columns:
        column.justify = "right"
    for point in [*found.sweep, *found.calm, *found.peak, *found.over]:
        load = point.load
        table.add_row(
            f"{load.offered / load.seconds:,.0f}",
            f"{point.taken_per_s:,.0f}",
            f"{load.refused / load.seconds:,.0f}",
            f"{load.p50_ms:.1f}",
            f"{load.p99_ms:.1f}",
            f"{load.refused_p50_ms:.1f}",
            f"{load.refused_p99_ms:.1f}",
            f"{load.unsent:,}",
            f"{load.cpu_s['server'] / load.seconds:.0%}",
            f"{load.rss_bytes['server'] / 2**20:.0f}",
        )
    console.print(table)
    pairs = list(zip(found.over, found.peak, strict=True))
    kept = [over.taken_per_s / peak.taken_per_s for over, peak in pairs]
    best = max(point.taken_per_s for point in found.sweep)
    per_cpu = [over.taken_per_cpu_s / peak.taken_per_cpu_s for over, peak in pairs]
    slower = [over.load.p99_ms / calm.load.p99_ms for calm, over in zip(found.calm, found.over, strict=True)]
    answered = [(p.load.taken + p.load.refused) / max(p.load.offered - p.load.unsent, 1) for p in found.over]
    rise = found.over[-1].load.rss_bytes["server"] / found.over[0].load.rss_bytes["server"] - 1
    console.print(f"throughput at {TIMES:g} times / at the peak's rate: {_spread(kept)} (bar: 0.9)")
    console.print(f"the same per second of processor time: {_spread(per_cpu)}")
    console.print(f"the same over the best of the sweep: {_spread([point.taken_per_s / best for point in found.over])}")
    console.print(f"p99 at {TIMES:g} times / at {CALM:.0%}: {_spread(slower)} (bar: 5)")
    console.print(f"answered at {TIMES:g} times, of what was sent: {_spread(answered)}")
    console.print(f"resident memory, the last {TIMES:g} times over the first: {rise:+.1%}\n")


def _spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    typer.run(overload)
