"""What int8 weights save, and what they cost, as served: ``python -m bench.quantization`` (needs the extra `export`).

Networks of the demo model's form, with 64 and with 256 hidden units, are written as float32, as int8, and by ONNX
Runtime's own dynamic quantisation. The last takes one scale for a whole batch and all its timesteps, so that rows would
change each other's answers: it is run as it would have to be served, row by row and timestep by timestep.

The weights are random: how long a run takes does not depend on them. Accuracy is told by ``conveyor-export export
--quantize int8``.
"""

import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import quantize_dynamic

from bench.machine import describe as describe_machine
from model_export import describe, export_streaming, quantize_file
from model_export.config import TrainConfig
from model_export.network import Forecaster
from model_export.split import Scaling
from service.adapters.onnx_model import OnnxModel
from service.adapters.redis_binary import candidates
from service.core.spec import Axis, Output

HIDDEN = (64, 256)
LAYERS, FEATURES, HORIZON, QUANTILES = 2, 8, 24, (0.1, 0.5, 0.9)
# (batch, time) of the runs that are measured.
SHAPES = ((1, 1), (8, 1), (64, 1), (1, 512))
ROUNDS, ROUND_S = 7, 0.3

Floats = NDArray[np.float32]
Run = Callable[[OnnxModel, Floats, Floats], object]


def main() -> None:
    # It recommends a pre-processing that changes nothing here.
    logging.getLogger().setLevel(logging.ERROR)
    machine = describe_machine(next(candidates())[1])
    print(f"{machine['processor']}, Python {machine['Python']}, ONNX Runtime {machine['onnxruntime']}, one thread\n")
    print("| hidden | weights | file, KB | " + " | ".join(f"batch {b} × {t}, µs" for b, t in SHAPES) + " |")
    print("|---" * (3 + len(SHAPES)) + "|")
    with tempfile.TemporaryDirectory() as folder:
        for hidden in HIDDEN:
            paths = _write(hidden, Path(folder) / str(hidden))
            models = {name: OnnxModel.load(path, name, "1") for name, path in paths.items()}
            cells = [_measure(models, batch, steps) for batch, steps in SHAPES]
            for name, path in paths.items():
                figures = " | ".join(_figure(cell, name) for cell in cells)
                print(f"| {hidden} | {name} | {path.stat().st_size / 1000:,.0f} | {figures} |")


def _write(hidden: int, folder: Path) -> dict[str, Path]:
    """Return the files of a network, by what their weights are."""
    torch.manual_seed(0)
    names = tuple(f"feature_{index}" for index in range(FEATURES))
    config = TrainConfig(
        features=names, targets=names[:1], horizon=HORIZON, quantiles=QUANTILES, layers=LAYERS, hidden=hidden
    )
    network = Forecaster(config, dict.fromkeys(names, Scaling(0.0, 1.0))).eval()
    axes = (Axis("horizon", tuple(range(1, HORIZON + 1))), Axis("quantile", QUANTILES))
    spec = describe(network, names, outputs=[Output(names[0], "forecast", axes=axes)])
    paths = {name: folder / name / "model.onnx" for name in ("float32", "int8", DYNAMIC)}
    export_streaming(network, spec, paths["float32"])
    quantize_file(paths["float32"], paths["int8"])
    paths[DYNAMIC].parent.mkdir()
    quantize_dynamic(paths["float32"], paths[DYNAMIC])
    return paths


def _whole(model: OnnxModel, x: Floats, state: Floats) -> None:
    model.run(x, state)


def _row_by_row(model: OnnxModel, x: Floats, state: Floats) -> None:
    for row in range(len(x)):
        carried = state[row : row + 1]
        for step in range(x.shape[1]):
            _, carried = model.run(x[row : row + 1, step : step + 1], carried)


DYNAMIC = "dynamic int8, row by row"
RUNS: dict[str, Run] = {"float32": _whole, "int8": _whole, DYNAMIC: _row_by_row}


def _measure(models: dict[str, OnnxModel], batch: int, steps: int) -> dict[str, float]:
    """Return each model's seconds for a run of (batch, steps): the median round's median, rounds interleaved."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, steps, FEATURES)).astype(np.float32)
    rounds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(ROUNDS):
        for name, model in models.items():
            state = np.zeros((batch, model.spec.state_size), np.float32)
            rounds[name].append(_median_seconds(RUNS[name], model, x, state))
    return {name: statistics.median(each) for name, each in rounds.items()}


def _median_seconds(run: Run, model: OnnxModel, x: Floats, state: Floats) -> float:
    run(model, x, state)
    found: list[float] = []
    until = time.perf_counter() + ROUND_S
    while (started := time.perf_counter()) < until:
        run(model, x, state)
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def _figure(cell: dict[str, float], name: str) -> str:
    """Microseconds, and how many times as fast as float32."""
    told = f"{cell[name] * 1e6:,.0f}"
    return told if name == "float32" else f"{told} ({cell['float32'] / cell[name]:.2f} ×)"


if __name__ == "__main__":
    main()
