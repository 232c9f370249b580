"""The folder of one training run: settings, what is to be known of the data, weights, figures and plots."""

import hashlib
import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from model_export.config import TrainConfig
from model_export.errors import InputError
from model_export.network import Forecaster
from model_export.series import Series
from model_export.split import Scaling, Split

CONFIG, CHECKPOINT, METRICS = "config.json", "checkpoint.pt", "metrics.json"


@dataclass(frozen=True)
class DataSummary:
    """What a model file says of the data it was trained on. `ranges` are (minimum, maximum) over the train rows."""

    source: str
    units: Mapping[str, str]
    ranges: Mapping[str, tuple[float, float]]
    scaling: Mapping[str, Scaling]
    split: Split
    period_s: float
    season: int

    @classmethod
    def of(
        cls, series: Series, split: Split, scaling: Mapping[str, Scaling], source: str, season: int
    ) -> "DataSummary":
        train = {name: series.columns[name][: split.train] for name in scaling}
        return cls(
            source=source,
            units={name: series.units.get(name, "") for name in scaling},
            ranges={name: (float(column.min()), float(column.max())) for name, column in train.items()},
            scaling=scaling,
            split=split,
            period_s=series.period_s,
            season=season,
        )

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "DataSummary":
        return cls(
            **{
                **document,
                "ranges": {name: tuple(pair) for name, pair in document["ranges"].items()},
                "scaling": {name: Scaling(**item) for name, item in document["scaling"].items()},
                "split": Split(**document["split"]),
            }
        )


@dataclass(frozen=True)
class Run:
    """A finished run. `metrics` is the content of metrics.json."""

    config: TrainConfig
    data: DataSummary
    network: Forecaster
    metrics: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 over the settings, the data's summary and the weights: what the model file is made from."""
        sha = hashlib.sha256(self._document().encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            sha.update(name.encode() + tensor.contiguous().numpy().tobytes())
        return sha.hexdigest()

    def save(self, folder: Path) -> None:
        (folder / CONFIG).write_text(self._document() + "\n", encoding="utf-8")
        (folder / METRICS).write_text(json.dumps(self.metrics, indent=2) + "\n", encoding="utf-8")
        torch.save(self.network.state_dict(), folder / CHECKPOINT)

    def _document(self) -> str:
        return json.dumps({"config": self.config.to_json(), "data": asdict(self.data)}, indent=2)

    @classmethod
    def load(cls, folder: Path) -> "Run":
        """Raises `InputError` when `folder` is no run folder or has been damaged."""
        if not (folder / CONFIG).is_file():
            raise InputError(f"{folder}: no run folder, it has no {CONFIG}; `train --out {folder}` makes one")
        try:
            document = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            config, data = TrainConfig.from_json(document["config"]), DataSummary.from_json(document["data"])
            metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
            network = Forecaster(config, dict(data.scaling))
            network.load_state_dict(torch.load(folder / CHECKPOINT, weights_only=True))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{folder}: a damaged run folder: {reason}") from error
        return cls(config, data, network.eval(), metrics)


def prepare(folder: Path) -> None:
    """Make `folder`, or take the one of an earlier run; raises `InputError` when it holds something else."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / CONFIG).is_file()):
        raise InputError(f"--out {folder}: exists and is no run folder; name a new one")
    folder.mkdir(parents=True, exist_ok=True)
