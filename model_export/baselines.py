"""The two forecasts that anybody has for nothing, which a model has to beat."""

import numpy as np
from numpy.typing import NDArray

from model_export.errors import InputError

DAY_S = 86400.0


def persistence(y: NDArray[np.float32], origins: range, horizon: int) -> NDArray[np.float32]:
    """The present value for every step ahead: (origins, horizon)."""
    return np.repeat(y[origins.start : origins.stop, None], horizon, axis=1)


def seasonal_naive(y: NDArray[np.float32], origins: range, horizon: int, season: int) -> NDArray[np.float32]:
    """The last value known that was a whole number of seasons before the step forecast: (origins, horizon)."""
    ahead = np.arange(1, horizon + 1)
    back = ahead - season * -(-ahead // season)
    forecast: NDArray[np.float32] = y[np.asarray(origins)[:, None] + back]
    return forecast


def seasonal_error(y: NDArray[np.float32], season: int) -> float:
    """Mean absolute one-season-ahead naive error of `y`: the scale of the MASE (Hyndman and Koehler 2006).

    Raises `InputError` where it is not there to be had: too few rows, or a series that repeats itself exactly.
    """
    if len(y) <= season:
        raise InputError(f"{len(y)} rows stand before those to forecast; a season of {season} needs {season + 1}")
    error = float(np.abs(y[season:].astype(np.float64) - y[:-season]).mean())
    if error == 0:
        raise InputError(f"the target repeats itself exactly every {season} rows: there is nothing to forecast")
    return error


def default_season(period_s: float | None) -> int:
    """Rows in a day. Raises `InputError` where a day is not a whole number, from 2, of periods."""
    rows = DAY_S / period_s if period_s else 0.0
    if rows < 2 or rows != int(rows):
        raise InputError("--season is needed: a day is not a whole number of sampling periods")
    return int(rows)
