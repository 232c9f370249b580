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

from bench import capacity, machine
from bench.chart import write_chart
from bench.effort import ALONE_ROUNDS, FULL, QUICK, Effort
from bench.measure import Measurement, measure, measure_alone, measure_script
from bench.pages import between_markers
from bench.probes import Probe, memory, population, sockets, startup, workers
from bench.report import WIDTH, markdown, print_tables, tables
from bench.scenarios import CONVEYOR, PARTS, REDIS, SCENARIOS, Scenario
from bench.servers import redis_binary, running
from bench.summary import Failure, Outcome, Round, Run

RESULTS = Path(__file__).resolve().parent / "results"

ALONE = "alone"
"""Names the parts alone, on the command line."""

PROBES: dict[str, Probe] = {
    "startup": startup.probe,
    "memory": memory.probe,
    "sockets": sockets.probe,
    "sessions": population.probe,
    "workers": workers.probe,
}


def bench(
    quick: Annotated[bool, typer.Option(help="Fewer and shorter rounds, fewer sessions and sockets.")] = False,
    only: Annotated[str | None, typer.Option(help="Names of scenarios and probes, separated by commas.")] = None,
    page: Annotated[Path | None, typer.Option("--markdown", help="Page whose tables are to be written anew.")] = None,
    results: Annotated[Path, typer.Option(help="Folder for the JSON and the chart.")] = RESULTS,
) -> None:
    """Measure Conveyor and its baselines on this machine."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    run = _run(QUICK if quick else FULL, _chosen(only), console)
    found = tables(run)
    print_tables(found, console)
    results.mkdir(parents=True, exist_ok=True)
    (results / "bench.json").write_bytes(msgspec.json.format(msgspec.json.encode(run)))
    write_chart(run, results / "throughput.png")
    console.print(f"written: {results / 'bench.json'} and {results / 'throughput.png'}")
    if page is not None:
        text = between_markers(page.read_text(), "bench", markdown(run, found))
        page.write_text(between_markers(text, "capacity", capacity.page_part(run)))
    for failure in run.failures:
        console.print(f"not measured: {failure.scenario} of {failure.subject}, round {failure.round}: {failure.reason}")
    raise typer.Exit(1 if run.failures else 0)


def _run(effort: Effort, chosen: list[str], console: Console) -> Run:
    started = time.monotonic()
    failures: list[Failure] = []
    rounds = [Round() for _ in range(max(effort.rounds, effort.population_rounds))]
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in chosen]
    parts = list(PARTS) if ALONE in chosen else []
    total = effort.rounds * sum(len(scenario.subjects) + scenario.script_beside for scenario in scenarios)
    total += min(effort.rounds, ALONE_ROUNDS) * len(parts)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("measuring", total=total + sum(name in chosen for name in PROBES))
        for number, outcome in _rounds(effort, scenarios, parts):
            _keep(outcome, number, rounds, failures)
            progress.advance(task)
        for name in chosen:
            if name in PROBES:
                for number, outcome in _guarded(name, effort):
                    _keep(outcome, number, rounds, failures)
                progress.advance(task)
    command = " ".join(["python -m bench", *sys.argv[1:]])
    return Run(command, machine.describe(redis_binary()), time.monotonic() - started, rounds, failures)


def _keep(outcome: Outcome, number: int, rounds: list[Round], failures: list[Failure]) -> None:
    if isinstance(outcome, Failure):
        failures.append(outcome)
    elif isinstance(outcome, Measurement):
        rounds[number - 1].measurements.append(outcome)
    else:
        rounds[number - 1].readings.append(outcome)


def _rounds(effort: Effort, scenarios: list[Scenario], parts: list[str]) -> Iterator[tuple[int, Outcome]]:
    """Measure every cell once a round: a scenario's subjects right after one another, so that their ratio is fair."""
    if not scenarios and not parts:
        return
    with running() as servers:
        for number in range(1, effort.rounds + 1):
            for scenario in scenarios:
                for subject in scenario.subjects:
                    try:
                        found = measure(scenario, subject, servers, warm_up_s=effort.warm_up_s, seconds=effort.seconds)
                        yield number, found
                    except (RuntimeError, OSError) as error:
                        yield number, Failure(scenario.name, subject, number, str(error))
                if scenario.script_beside:
                    try:
                        yield number, measure_script(scenario, servers, effort.warm_up_s, effort.seconds)
                    except (RuntimeError, OSError) as error:
                        yield number, Failure(scenario.script, REDIS, number, str(error))
            for part in parts if number <= ALONE_ROUNDS else ():
                try:
                    alone = measure_alone(part, servers, warm_up_s=effort.alone_s / 4, seconds=effort.alone_s)
                    yield from ((number, each) for each in alone)
                except (RuntimeError, OSError) as error:
                    yield number, Failure(ALONE, part, number, str(error))


def _guarded(name: str, effort: Effort) -> Iterator[tuple[int, Outcome]]:
    number = 1
    try:
        for number, outcome in PROBES[name](effort):
            yield number, outcome
    except (RuntimeError, OSError) as error:
        yield number, Failure(name, CONVEYOR, number, str(error))


def _chosen(only: str | None) -> list[str]:
    known = [scenario.name for scenario in SCENARIOS] + [ALONE] + list(PROBES)
    if only is None:
        return known
    names = only.split(",")
    if unknown := [name for name in names if name not in known]:
        raise typer.BadParameter(f"{', '.join(unknown)}: there are {', '.join(known)}", param_hint="--only")
    return names


if __name__ == "__main__":
    typer.run(bench)
