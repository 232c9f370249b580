"""A CSV streamed through a model file with carried state, and its forecasts scored beside the baselines."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_export.baselines import default_season
from model_export.errors import InputError
from model_export.runtime import Array, StreamingModel
from model_export.scoring import METRICS, Scores, compare, origins, standardised
from model_export.series import Series
from service.core.spec import ModelSpec, Output

# Timesteps per call: what a chunk gives is bit for bit what its single steps give, and it saves the calls.
CHUNK = 256


@dataclass(frozen=True)
class TargetReport:
    """One target's scores by forecaster. `std` is the deviation of its train rows, None where the file has none.

    `quantiles` is (origins, horizon, levels), `truth` the whole column, `at` the rows at which forecasts were made.
    """

    name: str
    unit: str
    std: float | None
    scores: dict[str, Scores]
    quantiles: NDArray[np.float32]
    levels: tuple[float, ...]
    truth: NDArray[np.float32]
    at: range

    def to_json(self) -> dict[str, Any]:
        """Every metric of every forecaster by horizon, in raw units, and its mean in both raw and standardised ones."""
        found: dict[str, Any] = {"unit": self.unit, "train_std": self.std, "forecasts": len(self.at)}
        for name, each in self.scores.items():
            found[name] = {metric: getattr(each, metric).tolist() for metric in METRICS}
            found[name]["coverage"] = each.coverage
            means = found[name]["mean"] = {metric: float(getattr(each, metric).mean()) for metric in METRICS}
            if self.std is not None:
                scaled = {metric: standardised(metric, value, self.std) for metric, value in means.items()}
                found[name]["standardised_mean"] = scaled
        return found


def backtest(
    model: StreamingModel,
    series: Series,
    rows: range,
    *,
    warm_up: int = 512,
    season: int | None = None,
    through: Callable[[Array], list[Array]] | None = None,
) -> list[TargetReport]:
    """Forecasts whose every target lies in `rows`, scored for each output of `model` that is a forecast.

    They are `stream`'s, or those of `through`, which does the same elsewhere. The state starts at zero `warm_up` rows
    before the first forecast. Raises `InputError` for a model that gives no quantile forecasts, rows that are not
    there, a series of another sampling period, and rows too few for `season`.
    """
    spec = model.spec
    x = series.matrix(spec.feature_names)
    _require_period(spec, series)
    season = season if season is not None else spec.training.get("season") or default_season(series.period_s)
    horizons = [_axes(output)[0] for output in spec.outputs]
    _require_rows(rows, len(series), season, max(horizons), warm_up)
    # The widest horizon sets the last row that is run; each output has its own last forecast.
    widest = origins(rows, min(horizons))
    start = max(0, widest.start - warm_up)
    fed = x[start : widest.stop]
    outputs = stream(model, fed) if through is None else through(fed)
    reports = []
    for output, array in zip(spec.outputs, outputs, strict=True):
        horizon, levels = _axes(output)
        at = origins(rows, horizon)
        quantiles = array[at.start - start : at.stop - start]
        truth = series.matrix([output.name])[:, 0]
        scaling = spec.training.get("scaling", {}).get(output.name)
        scores = compare(quantiles, levels, truth, rows, season)
        std = None if scaling is None else float(scaling["std"])
        reports.append(TargetReport(output.name, output.unit, std, scores, quantiles, levels, truth, at))
    return reports


def stream(model: StreamingModel, x: Array) -> list[Array]:
    """Outputs (rows, …) of one session that is fed `x` (rows, features), its state carried from call to call."""
    states = model.zero_states(1)
    chunks = []
    for start in range(0, len(x), CHUNK):
        outputs, states = model.run(x[None, start : start + CHUNK], states)
        chunks.append(outputs)
    return [np.concatenate(parts, axis=1)[0] for parts in zip(*chunks, strict=True)]


def select_rows(text: str | None, split: str | None, spec: ModelSpec, total: int) -> range:
    """The rows that ``--rows 11520:14400`` or ``--split test`` mean; the test rows of the training by default.

    Raises `InputError` for rows that cannot be read or a split that the model file knows nothing of.
    """
    if text is not None and split is not None:
        raise InputError("--rows and --split: one of the two is needed, not both")
    if text is not None:
        start, colon, stop = text.partition(":")
        if not colon or not all(part.isdecimal() or not part for part in (start, stop)):
            raise InputError(f"--rows {text}: START:STOP is needed, such as 11520:14400")
        return range(int(start or 0), int(stop or total))
    part = split or "test"
    if part not in ("validation", "test"):
        raise InputError(f"--split {part}: validation or test is needed")
    ends = spec.training.get("split")
    if ends is None:
        raise InputError("the model file does not say how its rows were split: give --rows START:STOP")
    return range(ends["train"], ends["validation"]) if part == "validation" else range(ends["validation"], ends["test"])


def _axes(output: Output) -> tuple[int, tuple[float, ...]]:
    """Horizon and quantile levels of a forecast."""
    if [axis.name for axis in output.axes] != ["horizon", "quantile"]:
        raise InputError(f"output {output.name!r} has no axes (horizon, quantile): it is no forecast to backtest")
    return len(output.axes[0].labels), tuple(float(level) for level in output.axes[1].labels)


def _require_period(spec: ModelSpec, series: Series) -> None:
    if spec.sampling_period_s not in (None, series.period_s):
        raise InputError(
            f"the series has a row every {series.period_s:g} s, the model was trained at {spec.sampling_period_s:g} s"
        )


def _require_rows(rows: range, total: int, season: int, horizon: int, warm_up: int) -> None:
    given = f"rows {rows.start}:{rows.stop}"
    if warm_up < 0:
        raise InputError(f"--warm-up {warm_up}: 0 or more is needed")
    if season < 1:
        raise InputError(f"--season {season}: at least 1 is needed")
    if rows.stop > total:
        raise InputError(f"{given}: the series has {total} rows")
    if len(rows) < horizon:
        raise InputError(f"{given}: at least {horizon} rows are needed, the model's horizon")
    if rows.start <= season:
        raise InputError(f"{given}: a season of {season} needs at least {season + 1} rows before the first one")
