"""All settings of one training run, checked when they are made."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from model_export.errors import InputError

CELLS = ("lstm", "gru", "rnn")
DEFAULT_QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a run. Raises `InputError` for a value that makes no sense, naming the option of the command line.

    `window` timesteps are back-propagated through at a time, in `streams` parallel, contiguous parts of the train rows.
    `patience` is the number of epochs without a better validation loss after which training stops. `residual` lets the
    network forecast the difference to the target's present value wherever the target is one of the features. `season`
    is in rows, by default a day; the seasonal naive baseline alone uses it.
    """

    features: tuple[str, ...]
    targets: tuple[str, ...]
    horizon: int = 24
    quantiles: tuple[float, ...] = DEFAULT_QUANTILES
    split: tuple[float, float, float] = (0.6, 0.2, 0.2)
    cell: str = "lstm"
    layers: int = 2
    hidden: int = 64
    dropout: float = 0.1
    residual: bool = True
    seed: int = 0
    epochs: int = 60
    patience: int = 10
    streams: int = 32
    window: int = 96
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    clip: float = 1.0
    season: int | None = None
    description: str = ""

    def __post_init__(self) -> None:
        _require_names("--features", self.features)
        _require_names("--targets", self.targets)
        if self.cell not in CELLS:
            raise InputError(f"--cell {self.cell}: one of {', '.join(CELLS)} is needed")
        for name in ("horizon", "layers", "hidden", "epochs", "patience", "streams", "window"):
            if (value := getattr(self, name)) < 1:
                raise InputError(f"--{name} {value}: at least 1 is needed")
        for name in ("learning_rate", "clip"):
            if not (value := getattr(self, name)) > 0:
                raise InputError(f"--{name.replace('_', '-')} {value:g}: a number above 0 is needed")
        if not self.weight_decay >= 0:
            raise InputError(f"--weight-decay {self.weight_decay:g}: 0 or more is needed")
        if self.season is not None and self.season < 1:
            raise InputError(f"--season {self.season}: at least 1 is needed")
        if not 0 <= self.dropout < 1:
            raise InputError(f"--dropout {self.dropout:g}: at least 0 and below 1 is needed")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed {self.seed}: a whole number from 0 to 2^63 - 1 is needed")
        _require_quantiles(self.quantiles)

    @property
    def columns(self) -> tuple[str, ...]:
        """Features, then those targets that are no features."""
        return tuple(dict.fromkeys((*self.features, *self.targets)))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "TrainConfig":
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in document.items()
        }
        return cls(**values)


def _require_names(option: str, names: Sequence[str]) -> None:
    if not names or not all(names):
        raise InputError(f"{option}: at least one column name is needed, separated by commas, none of them empty")
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{option}: {name!r} is there more than once")


def _require_quantiles(quantiles: Sequence[float]) -> None:
    given = ",".join(f"{quantile:g}" for quantile in quantiles)
    if not quantiles or not all(0 < quantile < 1 for quantile in quantiles):
        raise InputError(f"--quantiles {given}: numbers between 0 and 1 are needed, such as 0.1,0.5,0.9")
    if list(quantiles) != sorted(set(quantiles)):
        raise InputError(f"--quantiles {given}: they have to rise, such as 0.1,0.5,0.9")
