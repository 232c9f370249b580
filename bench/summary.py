"""What the rounds come to: medians per cell, and ratios with their spread."""

from collections.abc import Sequence
from statistics import median

import msgspec

from bench.goals import COMPARISONS, Cell, Comparison, Goal
from bench.measure import Measurement
from bench.scenarios import PARTS

Spread = tuple[float, float, float]
"""Median, least, most."""


class Failure(msgspec.Struct, frozen=True):
    """A cell that could not be measured in a round, and why."""

    scenario: str
    subject: str
    round: int
    reason: str


class Reading(msgspec.Struct, frozen=True):
    """A figure that is not measured under a load: bytes, seconds. Without a goal it is only reported."""

    title: str
    unit: str
    value: float
    goal: Goal | None = None


Outcome = Measurement | Reading | Failure


class Round(msgspec.Struct):
    """What was found in one round, in the order in which it was."""

    measurements: list[Measurement] = []
    readings: list[Reading] = []


class Run(msgspec.Struct, frozen=True):
    """A whole run."""

    command: str
    machine: dict[str, str]
    seconds: float
    rounds: list[Round]
    failures: list[Failure]


class Ratio(msgspec.Struct, frozen=True):
    """How many times over: of a figure, and of processor time per timestep turned around, so that more is better.

    Each round gives one ratio, of two measurements made shortly after one another. What else happens on a machine
    slows both, so a ratio is steadier than its parts. Where nothing is compared, it is the figure itself.
    """

    title: str
    figure: Spread
    processor: Spread
    goal: Goal | None
    rounds: int


def cells(run: Run) -> list[Measurement]:
    """Return for each cell the median of each figure over the rounds, in the order in which they came up."""
    found: dict[Cell, list[Measurement]] = {}
    for measurement in (m for each in run.rounds for m in each.measurements):
        found.setdefault((measurement.scenario, measurement.subject), []).append(measurement)
    return [_median(measurements) for measurements in found.values()]


def readings(run: Run) -> list[tuple[Reading, Spread]]:
    """Return each reading, with its spread over the rounds."""
    found: dict[str, list[Reading]] = {}
    for reading in (r for each in run.rounds for r in each.readings):
        found.setdefault(reading.title, []).append(reading)
    return [(each[0], _spread([reading.value for reading in each])) for each in found.values()]


def ratios(run: Run, comparisons: Sequence[Comparison] = COMPARISONS) -> list[Ratio]:
    return [found for comparison in comparisons if (found := _ratio(comparison, run.rounds)) is not None]


def _ratio(comparison: Comparison, rounds: Sequence[Round]) -> Ratio | None:
    figures, processor = [], []
    for each in rounds:
        by_cell = {(m.scenario, m.subject): m for m in each.measurements}
        of = by_cell.get(comparison.of)
        if of is None:
            continue
        if comparison.over is None:
            figures.append(getattr(of, comparison.figure))
        elif (over := by_cell.get(comparison.over)) is not None:
            figures.append(getattr(of, comparison.figure) / getattr(over, comparison.figure))
            if of.server_cpu_s and over.subject not in PARTS:  # a part alone has no server: its process only sends
                processor.append(over.server_cpu_s / of.server_cpu_s)
    if not figures:
        return None
    return Ratio(comparison.title, _spread(figures), _spread(processor), comparison.goal, len(figures))


def _spread(values: Sequence[float]) -> Spread:
    return (median(values), min(values), max(values)) if values else (0.0, 0.0, 0.0)


def _median(measurements: Sequence[Measurement]) -> Measurement:
    figures = {
        field: median(getattr(measurement, field) for measurement in measurements)
        for field in Measurement.__struct_fields__
        if field not in ("scenario", "title", "subject", "verified")
    }
    verified = sum(measurement.verified for measurement in measurements)
    return msgspec.structs.replace(measurements[0], **figures, verified=verified)
