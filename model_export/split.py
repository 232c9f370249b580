"""Train, validation and test rows in the order of time, and the scaling that the train rows alone determine."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_export.errors import InputError


@dataclass(frozen=True)
class Split:
    """Row numbers: train is [0, train), validation [train, validation), test [validation, test)."""

    train: int
    validation: int
    test: int

    def rows(self, part: str) -> range:
        """The rows of "train", "validation" or "test"."""
        return {
            "train": range(self.train),
            "validation": range(self.train, self.validation),
            "test": range(self.validation, self.test),
        }[part]


def chronological_split(rows: int, sizes: tuple[float, float, float]) -> Split:
    """`sizes` of train, validation and test: fractions of `rows`, or row counts where all are whole numbers from 1.

    Raises `InputError` for sizes that are not positive or do not fit into `rows`.
    """
    given = ",".join(f"{size:g}" for size in sizes)
    if not all(size > 0 for size in sizes):
        raise InputError(f"--split {given}: three sizes above 0 are needed")
    counted = all(size >= 1 and size == int(size) for size in sizes)
    if not counted and sum(sizes) > 1 + 1e-9:
        raise InputError(f"--split {given}: fractions that sum to 1 at most, or three row counts, are needed")
    train, validation, test = np.cumsum(sizes if counted else np.array(sizes) * rows).round(6).astype(int).tolist()
    if test > rows:
        raise InputError(f"--split {given}: {test} rows are needed, the series has {rows}")
    return Split(train, validation, test)


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation of one column over the train rows, in its raw unit."""

    mean: float
    std: float


def fit_scaling(train: NDArray[np.float32], names: tuple[str, ...]) -> dict[str, Scaling]:
    """The scaling of each column of `train` (rows, names).

    Raises `InputError` for a column that never changes: its deviation is 0, and it says nothing.
    """
    means, deviations = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    for name, mean, deviation in zip(names, means, deviations, strict=True):
        if deviation <= 1e-7 * max(1.0, abs(mean)):
            raise InputError(f"column {name!r} is {mean:g} in all {len(train)} train rows: leave it out")
    return {name: Scaling(float(m), float(s)) for name, m, s in zip(names, means, deviations, strict=True)}
