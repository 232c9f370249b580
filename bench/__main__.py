"""The command line: ``python -m bench``. Ends with status 1 where something could not be measured; never for speed."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress

from bench import machine
from bench.chart import write_chart
from bench.measure import Measurement, measure
from bench.report import print_tables, write_markdown
from bench.scenarios import SCENARIOS, Scenario
from bench.servers import Servers, running
from bench.summary import Failure, Run


class Effort(msgspec.Struct, frozen=True):
    """How long to measure each cell, and how often. The rounds of the cells that are compared are interleaved."""

    rounds: int
    warm_up_s: float
    seconds: float


FULL = Effort(rounds=5, warm_up_s=0.5, seconds=2.0)
QUICK = Effort(rounds=3, warm_up_s=0.2, seconds=0.5)
"""Enough to see that everything works, and roughly how fast; its p99.9 is not worth reading."""

FILE_WIDTH = 150
"""Columns of the tables where no terminal says how wide it is."""

RESULTS = Path(__file__).resolve().parent / "results"


def bench(
    quick: Annotated[bool, typer.Option(help="Fewer and shorter rounds.")] = False,
    only: Annotated[str | None, typer.Option(help="Names of scenarios, separated by commas.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Page whose table is to be written anew.")] = None,
    results: Annotated[Path, typer.Option(help="Folder for the JSON and the chart.")] = RESULTS,
) -> None:
    """Measure Conveyor and its baselines on this machine."""
    console = Console() if sys.stdout.isatty() else Console(width=FILE_WIDTH)
    run = _run(QUICK if quick else FULL, _chosen(only), console)
    print_tables(run, console)
    results.mkdir(parents=True, exist_ok=True)
    (results / "bench.json").write_bytes(msgspec.json.format(msgspec.json.encode(run)))
    write_chart(run, results / "throughput.png")
    console.print(f"written: {results / 'bench.json'} and {results / 'throughput.png'}")
    if markdown is not None:
        write_markdown(run, markdown)
    for failure in run.failures:
        console.print(f"not measured: {failure.scenario} of {failure.subject}, round {failure.round}: {failure.reason}")
    raise typer.Exit(1 if run.failures else 0)


def _run(effort: Effort, scenarios: list[Scenario], console: Console) -> Run:
    started = time.monotonic()
    failures: list[Failure] = []
    rounds: list[list[Measurement]] = []
    total = effort.rounds * sum(len(scenario.subjects) for scenario in scenarios)
    with running() as servers, Progress(console=console, transient=True) as progress:
        task = progress.add_task("measuring", total=total)
        for number in range(1, effort.rounds + 1):
            measured: list[Measurement] = []
            for outcome in _round(effort, number, scenarios, servers):
                if isinstance(outcome, Failure):
                    failures.append(outcome)
                else:
                    measured.append(outcome)
                progress.advance(task)
            rounds.append(measured)
        described = machine.describe(servers.redis)
    command = " ".join(["python -m bench", *sys.argv[1:]])
    return Run(command, described, time.monotonic() - started, rounds, failures)


def _round(effort: Effort, number: int, scenarios: list[Scenario], servers: Servers) -> Iterator[Measurement | Failure]:
    """Measure every cell once: a scenario's subjects right after one another, so that their ratio is fair."""
    for scenario in scenarios:
        for subject in scenario.subjects:
            try:
                yield measure(scenario, subject, servers, warm_up_s=effort.warm_up_s, seconds=effort.seconds)
            except (RuntimeError, OSError) as error:
                yield Failure(scenario.name, subject, number, str(error))


def _chosen(only: str | None) -> list[Scenario]:
    if only is None:
        return list(SCENARIOS)
    names = only.split(",")
    known = [scenario.name for scenario in SCENARIOS]
    if unknown := [name for name in names if name not in known]:
        raise typer.BadParameter(f"{', '.join(unknown)}: the scenarios are {', '.join(known)}", param_hint="--only")
    return [scenario for scenario in SCENARIOS if scenario.name in names]


if __name__ == "__main__":
    typer.run(bench)
