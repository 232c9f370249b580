"""How far one model's outputs are from another's over the same rows: what a quantised file costs."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_export.runtime import Array
from service.core.spec import ModelSpec

# In scaled units. Beyond these it is another model, not a rounded one.
MEAN_LIMIT, LARGEST_LIMIT = 0.05, 0.5


@dataclass(frozen=True)
class Deviation:
    """The absolute differences of one output, in its raw `unit`; `scale` is what one scaled unit is in raw ones.

    They are infinite where a number is none.
    """

    name: str
    unit: str
    scale: float
    mean: float
    largest: float

    @property
    def acceptable(self) -> bool:
        return self.mean <= MEAN_LIMIT * self.scale and self.largest <= LARGEST_LIMIT * self.scale

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        return (
            f"{self.name} differs by {self.mean:.2g}{unit} in the mean ({self.mean / self.scale:.2g} in scaled units), "
            f"by {self.largest:.2g}{unit} at most ({self.largest / self.scale:.2g})"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "unit": self.unit,
            "mean": self.mean,
            "largest": self.largest,
            "scaled_mean": self.mean / self.scale,
            "scaled_largest": self.largest / self.scale,
        }


def deviations(spec: ModelSpec, found: Iterable[Array], reference: Iterable[Array]) -> list[Deviation]:
    """Of each output in the order of ``spec.outputs``, arrays of equal shapes.

    A scaled unit is the train rows' deviation where the file has it, and that of the reference's numbers otherwise.
    """
    result = []
    scaling = spec.training.get("scaling", {})
    for output, mine, other in zip(spec.outputs, found, reference, strict=True):
        with np.errstate(invalid="ignore"):  # infinity minus infinity
            difference = np.abs(mine.astype(np.float64) - other)
        mean, largest = (
            each if math.isfinite(each) else math.inf for each in map(float, (difference.mean(), difference.max()))
        )
        scale = float(scaling[output.name]["std"]) if output.name in scaling else float(other.std()) or 1.0
        result.append(Deviation(output.name, output.unit, scale, mean, largest))
    return result
