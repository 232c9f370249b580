"""How good forecasts are, horizon by horizon: MAE, MSE, MASE and mean pinball loss."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_export.baselines import persistence, seasonal_error, seasonal_naive

Values = NDArray[np.float64]

METRICS = ("mae", "mse", "mase", "pinball")


@dataclass(frozen=True)
class Scores:
    """One forecaster's errors, each (horizon,); MAE and pinball in the target's unit, MSE in its square, MASE in none.

    `coverage` is the share of truths between the lowest and the highest quantile, None for a point forecast.
    """

    mae: Values
    mse: Values
    mase: Values
    pinball: Values
    coverage: float | None = None


def score(
    quantiles: NDArray[np.float32], levels: tuple[float, ...], truth: NDArray[np.float32], seasonal_mae: float
) -> Scores:
    """Scores of `quantiles` (origins, horizon, levels) for `truth` (origins, horizon).

    The point forecast is the quantile nearest to the median. `seasonal_mae` is `baselines.seasonal_error` of the rows
    that were known before.
    """
    error = truth[..., None].astype(np.float64) - quantiles
    point = error[..., int(np.argmin(np.abs(np.array(levels) - 0.5)))]
    mae = np.abs(point).mean(0)
    pinball = np.maximum(np.array(levels) * error, (np.array(levels) - 1) * error).mean(axis=(0, 2))
    inside = (error[..., 0] >= 0) & (error[..., -1] <= 0)
    coverage = float(inside.mean()) if len(levels) > 1 else None
    return Scores(mae, (point**2).mean(0), mae / seasonal_mae, pinball, coverage)


def compare(
    quantiles: NDArray[np.float32], levels: tuple[float, ...], y: NDArray[np.float32], rows: range, season: int
) -> dict[str, Scores]:
    """Scores of a model beside persistence and seasonal naive, over forecasts whose every target lies in `rows`.

    `y` is the whole target column and `quantiles` (origins, horizon, levels) the model's, for `origins(rows, …)`. The
    MASE's scale is taken from the rows before `rows`.
    """
    horizon = quantiles.shape[1]
    at = origins(rows, horizon)
    truth = y[np.asarray(at)[:, None] + np.arange(1, horizon + 1)]
    seasonal_mae = seasonal_error(y[: rows.start], season)
    points = {"persistence": persistence(y, at, horizon), "seasonal naive": seasonal_naive(y, at, horizon, season)}
    scores = {"model": score(quantiles, levels, truth, seasonal_mae)}
    for name, point in points.items():
        same = np.repeat(point[..., None], len(levels), axis=2)
        scores[name] = Scores(**{**vars(score(same, levels, truth, seasonal_mae)), "coverage": None})
    return scores


def origins(rows: range, horizon: int) -> range:
    """The rows at which a forecast is made, so that its first target is in `rows` and its last one too."""
    return range(rows.start - 1, rows.stop - horizon)


Means = dict[str, float | None]


def summary(scores: dict[str, Scores]) -> dict[str, Means]:
    """Each forecaster's metrics, averaged over the horizons."""
    return {
        name: {**{metric: float(getattr(each, metric).mean()) for metric in METRICS}, "coverage": each.coverage}
        for name, each in scores.items()
    }


def standardised(metric: str, value: float, std: float) -> float:
    """A metric as it would be of a target divided by its train rows' deviation `std`, as published tables have it."""
    return value / {"mae": std, "mse": std**2, "mase": 1.0, "pinball": std}[metric]
