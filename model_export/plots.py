"""The plots of a run and of a backtest, as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from model_export.scoring import Scores

BLUE, ORANGE, GREY = "#2b6cb0", "#dd6b20", "#718096"
# So many forecasts side by side fill a plot without touching each other.
SHOWN_FORECASTS = 6


def loss(history: Sequence[Mapping[str, float]], best: int, path: Path) -> None:
    """Train and validation loss by epoch, with the epoch whose weights were kept."""
    figure = _figure()
    axes = figure.subplots()
    epochs = [entry["epoch"] for entry in history]
    for part, colour in (("train", GREY), ("validation", BLUE)):
        axes.plot(epochs, [entry[part] for entry in history], color=colour, label=part)
    axes.axvline(best, color=ORANGE, linewidth=1, label=f"kept: epoch {best}")
    axes.set(xlabel="epoch", ylabel="pinball loss, scaled units", yscale="log")
    axes.legend(frameon=False)
    _save(figure, path)


def forecasts(
    quantiles: NDArray[np.float32],
    levels: Sequence[float],
    truth: NDArray[Any],
    times: NDArray[np.datetime64],
    origins: range,
    title: str,
    unit: str,
    path: Path,
) -> None:
    """Some consecutive forecasts (origins, horizon, levels) as fans over the truth, taken from the middle."""
    horizon = quantiles.shape[1]
    shown = min(SHOWN_FORECASTS, max(1, len(origins) // horizon))
    first = (len(origins) - shown * horizon) // 2 if len(origins) > shown * horizon else 0
    figure = _figure()
    axes = figure.subplots()
    rows = slice(origins[first], origins[first] + shown * horizon + 1)
    axes.plot(times[rows], truth[rows], color=GREY, linewidth=1.2, label="measured")
    median = int(np.argmin(np.abs(np.array(levels) - 0.5)))
    for fan in range(shown):
        index = first + fan * horizon
        ahead = times[origins[index] + 1 : origins[index] + 1 + horizon]
        axes.plot(ahead, quantiles[index, :, median], color=BLUE, linewidth=1.4, label="" if fan else "forecast")
        if len(levels) > 1:
            band = "" if fan else f"quantiles {levels[0]:g} to {levels[-1]:g}"
            low, high = quantiles[index, :, 0], quantiles[index, :, -1]
            axes.fill_between(ahead, low, high, color=BLUE, alpha=0.18, linewidth=0, label=band)
        axes.axvline(times[origins[index]], color=GREY, linewidth=0.5, linestyle=":")
    axes.set(title=title, ylabel=unit)
    axes.legend(frameon=False)
    figure.autofmt_xdate()
    _save(figure, path)


def errors_by_horizon(scores: Mapping[str, Scores], title: str, unit: str, path: Path) -> None:
    """Mean absolute error and mean pinball loss of each forecaster over the steps ahead."""
    figure = _figure()
    for axes, (metric, label) in zip(
        figure.subplots(1, 2), (("mae", "mean absolute error"), ("pinball", "mean pinball loss")), strict=True
    ):
        for (name, each), colour in zip(scores.items(), (BLUE, ORANGE, GREY), strict=True):
            values = getattr(each, metric)
            axes.plot(np.arange(1, len(values) + 1), values, color=colour, label=name)
        axes.set(xlabel="timesteps ahead", ylabel=f"{label} {unit and f'({unit})'}")
        axes.set_ylim(bottom=0)
    figure.axes[0].legend(frameon=False)
    figure.suptitle(title)
    _save(figure, path)


def _figure() -> Figure:
    """A figure that no window system and no global state knows of."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
