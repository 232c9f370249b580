"""The figures of growth as tables: for the terminal, and as a part of a page with pictures."""

import os
from pathlib import Path
from statistics import median

from bench.pages import markdown_table
from bench.report import Tables
from bench.sweeps import Growth, Point, Sweep

_HEAD = ("steps/s", "p50 ms", "p99 ms", "CPU s", "Redis CPU s")


def image_of(sweep: Sweep) -> str:
    return f"growth-{sweep.name}.png"


def tables(growth: Growth) -> Tables:
    return [(sweep.title, ("what", sweep.x_label, *_HEAD), _rows(sweep)) for sweep in growth.sweeps if sweep.points]


def page_part(growth: Growth, images: Path, page: Path) -> str:
    """Return the tables and pictures as a part of `page`; the pictures are in the folder `images`."""
    folder = Path(os.path.relpath(images, page.parent)).as_posix()
    measured = {sweep.title: sweep for sweep in growth.sweeps}
    machine = f"{growth.machine['processor']}, redis-server {growth.machine['redis-server']}"
    parts = [f"Measured by `{growth.command}`, in {growth.seconds:.0f} s, on {machine}."]
    for title, head, rows in tables(growth):
        picture = f"![{title}]({folder}/{image_of(measured[title])})"
        parts.append(f"### {title}\n\n{picture}\n\n{markdown_table(head, rows, left=1)}")
    parts += [f"Not measured: {reason}" for reason in growth.failures]
    return "\n\n".join(parts)


def by_line(sweep: Sweep) -> dict[str, dict[int, list[Point]]]:
    """Return the points of each series, by size, the rounds together."""
    lines: dict[str, dict[int, list[Point]]] = {}
    for point in sweep.points:
        lines.setdefault(point.series, {}).setdefault(point.x, []).append(point)
    return lines


def _rows(sweep: Sweep) -> list[list[str]]:
    rows = []
    for series, line in by_line(sweep).items():
        for x, points in sorted(line.items()):
            found = [point.measurement for point in points]
            rows.append(
                [
                    series,
                    f"{x:,}",
                    f"{median(m.steps_per_s for m in found):,.0f}",
                    f"{median(m.p50_ms for m in found):.2f}",
                    f"{median(m.p99_ms for m in found):.2f}",
                    f"{median(m.server_cpu_s for m in found):.3f}",
                    f"{median(m.redis_cpu_s for m in found):.3f}",
                ]
            )
    return rows
