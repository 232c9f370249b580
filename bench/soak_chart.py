"""What was sampled during a soak, one quantity below the other."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

Series = tuple[str, Sequence[tuple[float, float]]]
"""A quantity, and its values at times in minutes."""


def write_chart(series: Sequence[Series], folder: Path) -> None:
    """Write ``soak.png``."""
    figure, axes = plt.subplots(len(series), figsize=(9, 2 * len(series)), sharex=True, layout="constrained")
    for each, (name, points) in zip(axes, series, strict=True):
        each.plot([minute for minute, _ in points], [value for _, value in points], color="#0b6e99", linewidth=1)
        each.set_ylim(bottom=0)
        each.set_title(name, fontsize=9, loc="left")
        each.grid(alpha=0.3)
        each.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("minutes")
    figure.savefig(folder / "soak.png", dpi=150)
    plt.close(figure)
