"""``python -m tests.chaos``: every nemesis in turn, a table, and a status that is not 0 where a promise was broken."""

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.pages import between_markers, markdown_table
from tests.chaos import failover_nemeses, network_nemeses, redis_nemeses, service_nemeses
from tests.chaos.nemesis import Outcome, let_loose
from tests.chaos.sweep import SWEEPS, swept

NEMESES = [*service_nemeses.NEMESES, *redis_nemeses.NEMESES, *network_nemeses.NEMESES, *failover_nemeses.NEMESES]

HEAD = ("nemesis", "errors", "verdict", "strikes", "sessions", "steps", "replayed", "rewinds", "longest wait, s")
"""A strike of a sweep is a byte at which an exchange was broken."""

WORDS = 3
"""Columns of `HEAD` that hold words."""


def main() -> int:
    wanted = _arguments()
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(f"seed {wanted.seed}, {wanted.seconds:g} s a nemesis")
    started = time.monotonic()
    outcomes = []
    for outcome in _outcomes(wanted):
        outcomes.append(outcome)
        verdict = "held" if not outcome.report.violations else "[red]broken"
        console.print(f"{time.monotonic() - started:5.0f} s  {outcome.name}: {verdict}")
        for violation in outcome.report.violations[:10]:
            console.print(f"         {violation.kind}, {violation.session}: {violation.what}", markup=False)
    rows = [_row(outcome) for outcome in outcomes]
    console.print(_table(rows))
    if wanted.page:
        page = wanted.page.read_text()
        wanted.page.write_text(between_markers(page, "chaos", markdown_table(HEAD, rows, WORDS)))
    return 1 if any(outcome.report.violations for outcome in outcomes) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="decides when and how is struck (1)")
    parser.add_argument("--seconds", type=float, default=6, help="for which each nemesis strikes (6)")
    parser.add_argument("--positions", type=int, help="bytes at which each exchange is broken (all)")
    parser.add_argument("--only", default="", help="a part of the names of those that are wanted")
    parser.add_argument("--page", type=Path, help="a page to put the table into, between its markers")
    return parser.parse_args()


def _outcomes(wanted: argparse.Namespace) -> Iterator[Outcome]:
    for nemesis in NEMESES:
        if wanted.only in nemesis.name:
            yield asyncio.run(let_loose(nemesis, seed=wanted.seed, seconds=wanted.seconds))
    for sweep in SWEEPS:
        if wanted.only in sweep.name:
            yield asyncio.run(swept(sweep, seed=wanted.seed, positions=wanted.positions))


def _row(outcome: Outcome) -> list[str]:
    report = outcome.report
    errors = ", ".join(f"{code} {count:,}" for code, count in report.errors.most_common()) or "none"
    verdict = "held" if not report.violations else f"{len(report.violations)} violations"
    figures = (outcome.strikes, report.sessions, report.steps, report.replayed, report.rewinds)
    return [outcome.name, errors, verdict, *(f"{figure:,}" for figure in figures), f"{report.longest_s:.2f}"]


def _table(rows: list[list[str]]) -> Table:
    table = Table()
    for index, name in enumerate(HEAD):
        table.add_column(name, justify="left" if index < WORDS else "right")
    for row in rows:
        table.add_row(*row)
    return table


if __name__ == "__main__":
    sys.exit(main())
