"""What the rounds come to: medians per cell, and ratios with their spread."""

from collections.abc import Sequence
from statistics import median

import msgspec

from bench.measure import Measurement
from bench.scenarios import COMPARISONS, SCENARIOS, Comparison

Cell = tuple[str, str]
"""A scenario's name, and a subject's."""


class Failure(msgspec.Struct, frozen=True):
    """A cell that could not be measured in a round, and why."""

    scenario: str
    subject: str
    round: int
    reason: str


class Run(msgspec.Struct, frozen=True):
    """A whole run. `rounds` hold the measurements in the order in which they were made."""

    command: str
    machine: dict[str, str]
    seconds: float
    rounds: list[list[Measurement]]
    failures: list[Failure]


class Ratio(msgspec.Struct, frozen=True):
    """How many times over: of throughput, and of processor time per timestep turned around, so that more is better.

    Each round gives one ratio, of two measurements made shortly after one another; these are their median, least and
    most. What else happens on a machine slows both, so a ratio is steadier than its parts.
    """

    title: str
    throughput: tuple[float, float, float]
    processor: tuple[float, float, float]
    rounds: int


def cells(run: Run) -> list[Measurement]:
    """Return for each cell the median of each figure over the rounds, in the order of the scenarios."""
    found: dict[Cell, list[Measurement]] = {}
    for measurement in (m for measurements in run.rounds for m in measurements):
        found.setdefault((measurement.scenario, measurement.subject), []).append(measurement)
    order = [(scenario.name, subject) for scenario in SCENARIOS for subject in scenario.subjects]
    return [_median(found[cell]) for cell in order if cell in found]


def ratios(run: Run) -> list[Ratio]:
    return [found for comparison in COMPARISONS if (found := _ratio(comparison, run.rounds)) is not None]


def _ratio(comparison: Comparison, rounds: Sequence[Sequence[Measurement]]) -> Ratio | None:
    pairs = []
    for measurements in rounds:
        by_cell = {(m.scenario, m.subject): m for m in measurements}
        if comparison.of in by_cell and comparison.over in by_cell:
            pairs.append((by_cell[comparison.of], by_cell[comparison.over]))
    if not pairs:
        return None
    return Ratio(
        title=comparison.title,
        throughput=_spread([of.steps_per_s / over.steps_per_s for of, over in pairs]),
        processor=_spread([over.server_cpu_s / of.server_cpu_s for of, over in pairs if of.server_cpu_s]),
        rounds=len(pairs),
    )


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    return (median(values), min(values), max(values)) if values else (0.0, 0.0, 0.0)


def _median(measurements: Sequence[Measurement]) -> Measurement:
    figures = {
        field: median(getattr(measurement, field) for measurement in measurements)
        for field in Measurement.__struct_fields__
        if field not in ("scenario", "subject", "verified")
    }
    verified = sum(measurement.verified for measurement in measurements)
    return msgspec.structs.replace(measurements[0], **figures, verified=verified)
