"""What growth costs: ``python -m bench.growth``.

Throughput against connections, batch size, hidden size, sessions and workers. Written as PNGs beside the page and as
tables into it. Ends with status 1 where something could not be measured.
"""

import sys
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from bench import machine
from bench.growth_page import image_of, page_part, tables
from bench.growth_plot import plot
from bench.pages import between_markers
from bench.process import REPOSITORY
from bench.report import WIDTH, print_tables
from bench.servers import redis_binary
from bench.sweeps import FULL, QUICK, SWEEPS, Growth, Point, Sweep

MARKER = "growth"
RESULTS = REPOSITORY / "bench" / "results"


def growth(
    quick: Annotated[bool, typer.Option(help="Fewer sizes, one short round.")] = False,
    only: Annotated[str | None, typer.Option(help="Names of sweeps, separated by commas.")] = None,
    page: Annotated[Path | None, typer.Option("--markdown", help="Page whose tables are to be written anew.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder for the pictures; beside the JSON if none.")] = None,
    results: Annotated[Path, typer.Option(help="Folder for the JSON.")] = RESULTS,
) -> None:
    """Measure how throughput grows, or does not."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    found = _run(_chosen(only), quick, console)
    print_tables(tables(found), console)
    results.mkdir(parents=True, exist_ok=True)
    (results / "growth.json").write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    images = images or results
    images.mkdir(parents=True, exist_ok=True)
    for sweep in found.sweeps:
        plot(sweep, images / image_of(sweep))
    if page is not None:
        page.write_text(between_markers(page.read_text(), MARKER, page_part(found, images, page)))
    for reason in found.failures:
        console.print(f"not measured: {reason}")
    raise typer.Exit(1 if found.failures else 0)


def _run(chosen: list[str], quick: bool, console: Console) -> Growth:
    started = time.monotonic()
    sweeps: list[Sweep] = []
    failures: list[str] = []
    for name in chosen:
        console.print(f"measuring: {name}")
        sweep, measure = SWEEPS[name]
        points: list[Point] = []
        try:
            points.extend(measure(QUICK if quick else FULL))  # keeps what was measured before one that failed
        except (RuntimeError, OSError) as error:
            failures.append(f"{name}: {error}")
        sweeps.append(msgspec.structs.replace(sweep, points=points))
    command = " ".join(["python -m bench.growth", *sys.argv[1:]])
    return Growth(command, machine.describe(redis_binary()), time.monotonic() - started, sweeps, failures)


def _chosen(only: str | None) -> list[str]:
    names = list(SWEEPS) if only is None else only.split(",")
    if unknown := [name for name in names if name not in SWEEPS]:
        raise typer.BadParameter(f"{', '.join(unknown)}: there are {', '.join(SWEEPS)}", param_hint="--only")
    return names


if __name__ == "__main__":
    typer.run(growth)
