"""The figures as tables, for the terminal and for a page."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from bench.goals import COMPARISONS, Comparison, Goal
from bench.measure import Measurement
from bench.pages import markdown_table
from bench.scenarios import ECHO, PARTS
from bench.summary import Ratio, Reading, Run, Spread, cells, ratios, readings

WIDTH = 150
"""Columns of the tables where no terminal says how wide it is."""

Rows = list[list[str]]
Tables = list[tuple[str, tuple[str, ...], Rows]]

_FIGURES = (
    "scenario",
    "server",
    "steps/s",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "CPU s",
    "Redis CPU s",
    "MiB",
    "Redis MiB",
    "load",
    "verified",
)
_ALONE = ("batch", "alone", *_FIGURES[2:10])
_RATIOS = ("comparison", "bar", "aim", "measured", "", "CPU time per step", "rounds")
_CEILING = ("against echo", "steps/s", "of a core", "with a whole core")
_READINGS = ("figure", "bar", "aim", "measured", "")


def tables(run: Run, comparisons: Sequence[Comparison] = COMPARISONS) -> Tables:
    """Return the tables of a run: their titles, heads and rows."""
    measured = cells(run)
    alone = [cell for cell in measured if cell.subject in PARTS]
    served = [cell for cell in measured if cell.subject not in PARTS]
    made: Tables = [
        (
            "Ratios: median (least to most) of the rounds",
            _RATIOS,
            [_ratio(ratio) for ratio in ratios(run, comparisons)],
        ),
        ("Memory and start: median (least to most)", _READINGS, [_reading(*each) for each in readings(run)]),
        ("Medians of the rounds", _FIGURES, [_figures(cell) for cell in served]),
        ("What the load generator could drive", _CEILING, [_ceiling(cell) for cell in served if cell.subject == ECHO]),
        ("The parts alone", _ALONE, [_figures(cell)[: len(_ALONE)] for cell in alone]),
    ]
    return [table for table in made if table[2]]


def print_tables(found: Tables, console: Console) -> None:
    for title, head, rows in found:
        table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1))
        for index, name in enumerate(head):
            table.add_column(name, justify="left" if index < _left(head) else "right")
        previous = ""
        for row in rows:
            if previous and head is _FIGURES and row[0] != previous:
                table.add_section()
            table.add_row(*(cell.strip("*") for cell in (row if row[0] != previous else ["", *row[1:]])))
            previous = row[0]
        console.print(table)


def markdown(run: Run, found: Tables) -> str:
    """Return a run and its tables as a part of a page."""
    parts = [
        f"Measured by `{run.command}`, in {run.seconds:.0f} s, on:",
        markdown_table(("", ""), [[name, value] for name, value in run.machine.items()], left=2),
    ]
    parts += [f"**{title}**\n\n{markdown_table(head, rows, _left(head))}" for title, head, rows in found]
    if run.failures:
        parts.append(f"**Not measured**\n\n{markdown_table(('what', 'why'), _failures(run), left=2)}")
    return "\n\n".join(parts)


def _figures(cell: Measurement) -> list[str]:
    return [
        cell.title,
        cell.subject,
        f"{cell.steps_per_s:,.0f}",
        f"{cell.p50_ms:.2f}",
        f"{cell.p99_ms:.2f}",
        f"{cell.p999_ms:.2f}",
        f"{cell.server_cpu_s:.3f}",
        f"{cell.redis_cpu_s:.3f}",
        f"{cell.server_rss_mb:.0f}",
        f"{cell.redis_rss_mb:.0f}",
        f"{cell.load_busy:.0%}",
        f"{cell.verified:,}" if cell.verified else "–",
    ]


def _ceiling(cell: Measurement) -> list[str]:
    whole = cell.steps_per_s / cell.load_busy if cell.load_busy else 0.0
    return [cell.title, f"{cell.steps_per_s:,.0f}", f"{cell.load_busy:.0%}", f"{whole:,.0f}"]


def _ratio(ratio: Ratio) -> list[str]:
    goal = goal_cells(ratio.goal, ratio.figure[0], "")
    return [ratio.title, *goal[:2], _text(ratio.figure), goal[2], _text(ratio.processor), str(ratio.rounds)]


def _reading(reading: Reading, spread: Spread) -> list[str]:
    goal = goal_cells(reading.goal, spread[0], reading.unit)
    return [reading.title, *goal[:2], f"{_text(spread)} {reading.unit}", goal[2]]


def goal_cells(goal: Goal | None, value: float, unit: str) -> tuple[str, str, str]:
    """Return what is asked for and whether `value` is it: bar, aim, verdict."""
    if goal is None:
        return "–", "–", "reported"
    sign = "≤" if goal.at_most else "≥"
    return f"{sign} {goal.bar:,g} {unit}".strip(), f"{sign} {goal.aim:,g} {unit}".strip(), goal.verdict(value)


def _text(spread: Spread) -> str:
    if not any(spread):
        return "–"
    digits = 2 if spread[0] < 1000 else 0
    middle, least, most = (f"{value:,.{digits}f}" for value in spread)
    return middle if least == most else f"{middle} ({least} to {most})"


def _failures(run: Run) -> Rows:
    return [[f"{f.scenario} of {f.subject}, round {f.round}", f.reason] for f in run.failures]


def _left(head: Sequence[str]) -> int:
    """How many columns hold words rather than figures."""
    return 1 if head in (_RATIOS, _READINGS, _CEILING) else 2
