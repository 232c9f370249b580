"""A series and settings with which a run takes a second."""

from typing import Any

import numpy as np

from model_export.config import TrainConfig
from model_export.series import Series

PERIOD_S = 3600.0


def waves(rows: int, seed: int = 0) -> Series:
    """An hourly series: a daily wave, and a target that follows it two hours later."""
    rng = np.random.default_rng(seed)
    hours = np.arange(rows)
    driver = 20 + 5 * np.sin(2 * np.pi * hours / 24) + rng.normal(0, 0.5, rows)
    target = 100 + 3 * np.roll(driver, 2) + rng.normal(0, 0.5, rows)
    times = np.datetime64("2024-01-01T00:00:00", "ns") + hours * np.timedelta64(int(PERIOD_S), "s")
    return Series({"driver": driver, "target": target}, times, PERIOD_S, {"driver": "kW", "target": "°C"})


def small_config(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "features": ("driver", "target"),
        "targets": ("target",),
        "horizon": 4,
        "layers": 1,
        "hidden": 8,
        "streams": 4,
        "window": 24,
        "epochs": 3,
        "seed": 3,
    }
    return TrainConfig(**{**settings, **changes})
