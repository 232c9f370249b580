"""A multivariate time series, from a CSV file or from the simulator, checked before anything is computed on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model_export.errors import InputError
from model_export.simulator import UNITS, simulate

if TYPE_CHECKING:
    import pandas as pd

Values = NDArray[np.float64]

HEADER_LINES = 1
SECOND = np.timedelta64(1, "s")


@dataclass(frozen=True)
class Series:
    """Rows at a fixed period. `columns` are float64 (rows,), `times` datetime64[ns] (rows,), `period_s` in seconds."""

    columns: Mapping[str, Values]
    times: NDArray[np.datetime64]
    period_s: float
    units: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.times)

    def matrix(self, names: Sequence[str]) -> NDArray[np.float32]:
        """The named columns side by side: float32 (rows, names). Raises `InputError` for a name that is not there."""
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise InputError(f"no column {missing[0]!r}; there are {', '.join(self.columns)}")
        return np.stack([self.columns[name] for name in names], axis=1).astype(np.float32)


def read_csv(path: Path, time: str, columns: Sequence[str], units: Mapping[str, str] | None = None) -> Series:
    """The `columns` of a CSV file whose `time` column counts up in equal steps.

    Raises `InputError` with the line of the file for a missing, non-numeric or infinite value and for a timestamp that
    is unreadable, repeated, out of order or off the period (compared in UTC); and for a missing file or column.
    """
    import pandas as pd

    names = list(dict.fromkeys(columns))
    try:
        table = pd.read_csv(path, skipinitialspace=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path}: not a readable CSV file: {str(error).strip()}") from None
    for name in (time, *names):
        if name not in table:
            raise InputError(f"{path}: no column {name!r}; the file has {', '.join(map(str, table.columns))}")
    if len(table) < 3:
        raise InputError(f"{path}: {len(table)} rows; at least 3 are needed to tell the sampling period")
    times = _times(path, table[time])
    return Series(
        {name: _numbers(path, table[name]) for name in names}, times, _period(path, time, times), dict(units or {})
    )


def demo_series(days: int, seed: int) -> Series:
    """`days` of the simulated transformer, in the columns of `model_export.simulator.UNITS`."""
    simulation = simulate(days, seed)
    times = np.array(simulation.times, dtype="datetime64[ns]")
    return Series(simulation.columns, times, float((times[1] - times[0]) / SECOND), UNITS)


def write_csv(series: Series, path: Path, time: str = "time") -> None:
    """Write `series` as a CSV file that `read_csv` reads."""
    import pandas as pd

    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({time: series.times, **series.columns}).to_csv(path, index=False)


def _times(path: Path, column: "pd.Series[str]") -> NDArray[np.datetime64]:
    import pandas as pd

    parsed = pd.to_datetime(column, errors="coerce", format="ISO8601", utc=True)
    if (bad := np.flatnonzero(parsed.isna())).size:
        raise InputError(
            f"{path}, line {_line(bad[0])}: {column.name} {column.iloc[bad[0]]!r} is no timestamp; "
            "ISO 8601 is needed, such as 2024-05-01 13:45:00"
        )
    return parsed.dt.tz_localize(None).to_numpy().astype("datetime64[ns]")


def _period(path: Path, name: str, times: NDArray[np.datetime64]) -> float:
    steps = np.diff(times) / SECOND
    period = float(np.median(steps))
    if (bad := np.flatnonzero((steps != period) | (steps <= 0))).size:
        step, here = steps[bad[0]], f"{path}, line {_line(bad[0] + 1)}: {name} {_text(times[bad[0] + 1])}"
        if step == 0:
            raise InputError(f"{here} is there twice; one row per timestamp is needed")
        if step < 0:
            raise InputError(f"{here} is before the row above it; sort the rows by time")
        raise InputError(
            f"{here} comes {step:g} s after the row above it, where the other rows come every {period:g} s; "
            "resample the file to a fixed period"
        )
    return period


def _text(time: np.datetime64) -> str:
    """A timestamp without the fraction of a second where it has none."""
    return np.datetime_as_string(time).removesuffix(".000000000")


def _numbers(path: Path, column: "pd.Series[float]") -> Values:
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    if (bad := np.flatnonzero(~np.isfinite(numbers))).size:
        value = column.iloc[bad[0]]
        found = "a value is missing" if pd.isna(value) else f"{value!r} is not a finite number"
        raise InputError(
            f"{path}, line {_line(bad[0])}, column {column.name}: {found} ({bad.size} such rows in all); "
            "fill or drop them first"
        )
    return numbers


def _line(row: int) -> int:
    """The line of the file, counted from 1, that holds a row, counted from 0."""
    return int(row) + HEADER_LINES + 1
