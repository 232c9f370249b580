"""The figures as a picture: throughput per scenario, with the spread over the rounds."""

from pathlib import Path
from statistics import median

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from bench.scenarios import CONVEYOR, ECHO, NAIVE, SCENARIOS
from bench.summary import Run

_COLOURS = {CONVEYOR: "#0b6e99", NAIVE: "#d98324", ECHO: "#b8bcc2"}
_LABELS = {
    CONVEYOR: "Conveyor",
    NAIVE: "naive: FastAPI + redis.asyncio + ONNX Runtime",
    ECHO: "echo: no model, no Redis",
}
_BAR = 0.26


def write_chart(run: Run, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(9, 6.5), layout="constrained")
    scenarios = [s for s in SCENARIOS if any(m.scenario == s.name for each in run.rounds for m in each.measurements)]
    for place, scenario in enumerate(scenarios):
        for row, subject in enumerate(scenario.subjects):
            at = place + (row - (len(scenario.subjects) - 1) / 2) * _BAR
            _bar(axes, at, subject, _values(run, scenario.name, subject))
    axes.set_yticks(range(len(scenarios)), [scenario.title for scenario in scenarios])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(right=axes.get_xlim()[1] * 1.5)  # room for the last figure
    axes.set_xlabel("timesteps per second (logarithmic; the line is the spread over the rounds)")
    axes.grid(axis="x", which="major", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    handles = [Patch(color=colour) for colour in _COLOURS.values()]
    figure.legend(handles, _LABELS.values(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(run.machine["processor"], fontsize=9, color="#666666")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _values(run: Run, scenario: str, subject: str) -> list[float]:
    return sorted(
        m.steps_per_s
        for each in run.rounds
        for m in each.measurements
        if (m.scenario, m.subject) == (scenario, subject)
    )


def _bar(axes: Axes, at: float, subject: str, values: list[float]) -> None:
    if not values:
        return
    middle = median(values)
    axes.barh(at, middle, _BAR * 0.9, color=_COLOURS[subject])
    axes.hlines(at, values[0], values[-1], color="#222222", linewidth=1)
    axes.annotate(f"{middle:,.0f}", (values[-1], at), (4, 0), textcoords="offset points", va="center", fontsize=8)
