"""The figures of growth as pictures: throughput against what grows, with the spread over the rounds."""

from pathlib import Path
from statistics import median

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator

from bench.growth_page import by_line
from bench.sweeps import Sweep

_FLAT = 4
"""What differs by less than so many times has an axis from zero on: a logarithmic one would have hardly any numbers."""
_COLOURS = ("#0b6e99", "#d98324", "#5aa9c7", "#eab676")


def plot(sweep: Sweep, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    ticks = sorted({point.x for point in sweep.points})
    for (series, line), colour in zip(by_line(sweep).items(), _COLOURS, strict=False):
        sizes = sorted(line)
        values = {x: sorted(point.measurement.steps_per_s for point in line[x]) for x in sizes}
        axes.plot(sizes, [median(values[x]) for x in sizes], "o-", color=colour, markersize=4, label=series)
        axes.vlines(sizes, [values[x][0] for x in sizes], [values[x][-1] for x in sizes], color=colour, linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{x:,}" for x in ticks])
    rates = [point.measurement.steps_per_s for point in sweep.points]
    if max(rates) < _FLAT * min(rates):
        axes.set_ylim(bottom=0)
    else:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel(sweep.x_label)
    axes.set_ylabel("timesteps per second")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
