"""Where a command's rows come from: a CSV file, or the simulator."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model_export import options
from model_export.errors import InputError
from model_export.series import Series, demo_series, read_csv
from model_export.simulator import UNITS
from service.core.spec import ModelSpec

DEMO_TARGETS = ("hot_spot",)
DEMO_DESCRIPTION = (
    "Hot-spot temperature of a simulated oil-immersed transformer (IEC 60076-7) over the next six hours, "
    "from a row of readings every 15 minutes."
)


@dataclass(frozen=True)
class Source:
    """Columns to train on, and how to load them."""

    name: str
    features: tuple[str, ...]
    targets: tuple[str, ...]
    description: str
    load: Callable[[], Series]


def load_training(
    csv: Path | None,
    time: str,
    features: str | None,
    targets: str | None,
    units: str | None,
    *,
    demo: bool,
    days: int,
    seed: int,
) -> Source:
    """The source of a training. Raises `InputError` unless it is either the demo or a CSV file with its columns."""
    _require_one(csv, demo)
    if csv is None:
        if features or targets or units:
            raise InputError("--demo: has its own columns; leave out --features, --targets and --units")
        name = f"simulated transformer, {days} days, seed {seed}"
        return Source(name, tuple(UNITS), DEMO_TARGETS, DEMO_DESCRIPTION, lambda: demo_series(days, seed))
    if not features or not targets:
        raise InputError("--csv: needs --features and --targets, column names separated by commas")
    inputs, outputs, unit = options.names(features), options.names(targets), options.pairs("--units", units)
    if unknown := sorted(unit.keys() - {*inputs, *outputs}):
        raise InputError(f"--units {unknown[0]}: neither a feature nor a target")
    return Source(csv.name, inputs, outputs, "", lambda: read_csv(csv, time, (*inputs, *outputs), unit))


def load_backtest(spec: ModelSpec, csv: Path | None, time: str, *, demo: bool, days: int, seed: int) -> Series:
    """The columns that `spec` names as features and outputs; raises `InputError` where they cannot be had."""
    _require_one(csv, demo)
    columns = (*spec.feature_names, *(output.name for output in spec.outputs))
    return demo_series(days, seed) if csv is None else read_csv(csv, time, columns)


def _require_one(csv: Path | None, demo: bool) -> None:
    if (csv is None) is not demo:
        raise InputError("either --csv FILE or --demo is needed" + (", not both" if demo else ""))
