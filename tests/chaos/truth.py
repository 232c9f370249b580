"""The undisturbed run: ONNX Runtime over a session's whole sequence, without any service."""

from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import onnxruntime as ort

from tests.streaming_client import reading

MODEL = Path(__file__).resolve().parents[2] / "models" / "hotspot" / "1" / "model.onnx"


def number_of(session: str) -> int:
    """Return the number at the end of a session's name, from which its readings are made."""
    return int(session.rpartition("-")[2])


def row(session: str, step: int) -> list[float]:
    """Return the timestep that a session is sent as this step."""
    return reading(number_of(session), step)


@lru_cache(maxsize=64)
def truth(session: str, steps: int) -> list[bytes]:
    """Return the outputs of a session's first so many steps, as bytes of float32."""
    if not steps:
        return []
    x = np.array([[row(session, step) for step in range(1, steps + 1)]], np.float32)
    feeds = {"x": x} | {name: np.zeros(shape, np.float32) for name, shape in _states().items()}
    (outputs,) = _model().run(["forecast_hot_spot"], feeds)
    return [timestep.tobytes() for timestep in outputs[0]]


@cache
def _model() -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])


@cache
def _states() -> dict[str, tuple[int, ...]]:
    """Return the shape of each state of one session: whatever is not fixed is the batch."""
    return {
        each.name: tuple(size if isinstance(size, int) else 1 for size in each.shape)
        for each in _model().get_inputs()
        if each.name != "x"
    }
