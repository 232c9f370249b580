"""A backtest through a running service is the backtest of the file, to the bit."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from model_export.backtest import stream
from model_export.errors import InputError
from model_export.runtime import StreamingModel
from model_export.served import stream_served
from tests.servers import ConveyorServer

HOTSPOT = Path(__file__).parents[2] / "models" / "hotspot" / "1" / "model.onnx"


@pytest.fixture
def model() -> StreamingModel:
    return StreamingModel(HOTSPOT)


def rows(model: StreamingModel, count: int) -> np.ndarray:
    low = np.array([feature.minimum for feature in model.spec.features])
    high = np.array([feature.maximum for feature in model.spec.features])
    return (low + (high - low) * np.random.default_rng(3).random((count, len(low)))).astype(np.float32)


def test_the_service_gives_what_the_file_gives(model: StreamingModel, service: ConveyorServer) -> None:
    x = rows(model, 700)
    served = stream_served(service.url, HOTSPOT, model.spec, x)
    for ours, theirs in zip(stream(model, x), served, strict=True):
        assert ours.tobytes() == theirs.tobytes()


def test_what_the_service_says_is_passed_on(model: StreamingModel, service: ConveyorServer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model 'unknown'"):
        stream_served(service.url, tmp_path / "unknown" / "1" / "model.onnx", model.spec, rows(model, 1))
    with pytest.raises(InputError, match="x has 3 numbers; the model takes 8"):
        stream_served(service.url, HOTSPOT, model.spec, np.zeros((1, 3), np.float32))
    with pytest.raises(InputError, match=r"--server http://127\.0\.0\.1:9"):
        stream_served("http://127.0.0.1:9", HOTSPOT, model.spec, rows(model, 1))


def test_the_command_prints_the_errors_beside_the_baselines(service: ConveyorServer, tmp_path: Path) -> None:
    command = ["backtest", str(HOTSPOT), "--demo", "--days", "12", "--rows", "700:1000", "--warm-up", "96"]
    command += ["--plot", str(tmp_path / "plot.png"), "--server", service.url]
    done = subprocess.run(
        [sys.executable, "-m", "model_export", *command], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "seasonal naive" in done.stdout
    assert (tmp_path / "plot.png").stat().st_size > 0
