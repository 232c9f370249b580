"""The right answers: ONNX Runtime over a session's whole history in one run, without any service."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from bench.load import Sample
from bench.scenarios import Scenario
from bench.traffic import Row, row_at, session_id

MODEL = Path(__file__).resolve().parent.parent / "models" / "hotspot" / "1" / "model.onnx"
MODEL_NAME = "hotspot"
OUTPUT = "hot_spot"

ROWS = 32
"""Distinct timesteps that are sent, over and over."""

CHECKED_SESSIONS = 16
"""Sessions of a sampled connection whose answers are compared."""

TOLERANCE = 1e-3
"""Largest difference, in the output's unit (°C): batched float32 sums round otherwise than single ones."""


def rows() -> list[Row]:
    """Return plausible timesteps: uniform between the least and the most that the model was trained on."""
    spec = json.loads(_model().get_modelmeta().custom_metadata_map["conveyor.spec"])
    low = [feature["minimum"] for feature in spec["features"]]
    high = [feature["maximum"] for feature in spec["features"]]
    drawn = np.random.default_rng(0).uniform(low, high, (ROWS, len(low)))
    return [[round(value, 4) for value in row] for row in drawn.tolist()]


def verify(scenario: Scenario, prefix: str, sent: Sequence[Row], samples: Sequence[Sample]) -> int:
    """Compare answers with the model's; return how many were. Raises RuntimeError on the first that differs.

    A session's answer depends on all its timesteps before: one lost, doubled or swapped between sessions shows here.
    """
    compared = 0
    for connection in sorted({sample.connection for sample in samples}):
        answers = {sample.message: sample.body for sample in samples if sample.connection == connection}
        first = connection * scenario.sessions
        length = (max(answers) + 1) * scenario.timesteps
        sessions = range(first, first + min(scenario.sessions, CHECKED_SESSIONS))
        expected = _forecasts([[row_at(sent, session, step) for step in range(length)] for session in sessions])
        for message, body in answers.items():
            found = _outputs(scenario, body)
            for place, session in enumerate(sessions):
                right = expected[place, (message + 1) * scenario.timesteps - 1]
                if found[place].shape != right.shape or np.abs(found[place] - right).max() > TOLERANCE:
                    raise RuntimeError(f"message {message} of {session_id(prefix, session)} got a wrong forecast")
                compared += 1
    return compared


def _outputs(scenario: Scenario, body: bytes) -> list[NDArray[np.float64]]:
    """Return the forecasts in an answer, in the order of its sessions."""
    try:
        answer = json.loads(body)
        if scenario.sessions > 1 and scenario.wire == "http":
            answer = answer["results"]
        answers = answer if scenario.sessions > 1 else [answer]
        return [np.array(each["outputs"][OUTPUT], np.float64) for each in answers]
    except (ValueError, TypeError, LookupError) as error:
        raise RuntimeError(f"an answer cannot be read ({error}): {body[:300]!r}") from error


def _forecasts(histories: list[list[Row]]) -> NDArray[np.float32]:
    """Run sessions from their beginning: (session, time, horizon, quantile)."""
    zeros = np.zeros((2, len(histories), 64), np.float32)
    feeds = {"x": np.array(histories, np.float32), "hidden": zeros, "cell": zeros}
    forecast: NDArray[np.float32] = _model().run(None, feeds)[0]
    return forecast


@cache
def _model() -> ort.InferenceSession:
    return ort.InferenceSession(MODEL)
