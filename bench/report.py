"""The figures as tables: for the terminal, and for a page between two markers."""

from collections.abc import Iterable
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from bench.measure import Measurement
from bench.scenarios import SCENARIOS
from bench.summary import Ratio, Run, cells, ratios

BEGIN = "<!-- bench: begin -->"
END = "<!-- bench: end -->"

Rows = list[list[str]]

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
_RATIOS = ("comparison", "throughput", "CPU time per step", "rounds")

_TITLES = {scenario.name: scenario.title for scenario in SCENARIOS}


def print_tables(run: Run, console: Console) -> None:
    for title, head, rows in _tables(run):
        table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1))
        for index, name in enumerate(head):
            table.add_column(name, justify="left" if index < _left(head) else "right")
        previous = ""
        for row in rows:
            if previous and head is _FIGURES and row[0] != previous:
                table.add_section()
            table.add_row(*(row if row[0] != previous else ["", *row[1:]]))
            previous = row[0]
        console.print(table)


def write_markdown(run: Run, page: Path) -> None:
    """Put the figures into a page, between its markers. Raises ValueError where it has none."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no {BEGIN} … {END}")
    parts = [f"Measured by `{run.command}`, in {run.seconds:.0f} s, on:", _markdown(("", ""), _facts(run))]
    parts += [f"**{title}**\n\n{_markdown(head, rows)}" for title, head, rows in _tables(run)]
    page.write_text(before + "\n\n".join([begin, *parts, end]) + after)


def _tables(run: Run) -> Iterable[tuple[str, tuple[str, ...], Rows]]:
    count = len(run.rounds)
    yield f"Medians of {count} rounds", _FIGURES, [_figures(cell) for cell in cells(run)]
    yield "Ratios: median (least to most) of the rounds", _RATIOS, [_ratio(ratio) for ratio in ratios(run)]


def _figures(cell: Measurement) -> list[str]:
    return [
        _TITLES[cell.scenario],
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


def _ratio(ratio: Ratio) -> list[str]:
    def text(spread: tuple[float, float, float]) -> str:
        middle, least, most = spread
        return f"{middle:.2f} ({least:.2f} to {most:.2f})"

    return [ratio.title, text(ratio.throughput), text(ratio.processor), str(ratio.rounds)]


def _facts(run: Run) -> Rows:
    return [[name, value] for name, value in run.machine.items()]


def _markdown(head: tuple[str, ...], rows: Rows) -> str:
    rule = ["---" if index < _left(head) else "---:" for index in range(len(head))]
    return "\n".join(f"| {' | '.join(cells_)} |" for cells_ in (head, rule, *rows))


def _left(head: tuple[str, ...]) -> int:
    """How many columns hold words rather than figures."""
    return 1 if head is _RATIOS else 2
