"""The right answers: ONNX Runtime over a session's whole history in one run, without any service."""

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from bench.encodings import ENCODINGS
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
    spec = json.loads(_session(MODEL).get_modelmeta().custom_metadata_map["conveyor.spec"])
    low = [feature["minimum"] for feature in spec["features"]]
    high = [feature["maximum"] for feature in spec["features"]]
    drawn = np.random.default_rng(0).uniform(low, high, (ROWS, len(low)))
    return [[round(value, 4) for value in row] for row in drawn.tolist()]


Reader = Callable[[Scenario, bytes], list[NDArray[np.float64]]]
"""Returns the forecasts in an answer, in the order of its sessions. Raises RuntimeError where it cannot be read."""


def outputs_of(scenario: Scenario, body: bytes) -> list[NDArray[np.float64]]:
    """Read an answer of Conveyor's, see `Reader`."""
    encoding = ENCODINGS[scenario.encoding]
    try:
        answer = encoding.decode(body)
        if scenario.sessions > 1 and scenario.wire == "http":
            answer = answer["results"]
        answers = answer if scenario.sessions > 1 else [answer]
        return [encoding.outputs(each["outputs"][OUTPUT]) for each in answers]
    except (ValueError, TypeError, LookupError) as error:
        raise RuntimeError(f"an answer cannot be read ({error}): {body[:300]!r}") from error


def verify(
    scenario: Scenario,
    prefix: str,
    sent: Sequence[Row],
    samples: Sequence[Sample],
    model: Path = MODEL,
    read: Reader = outputs_of,
) -> int:
    """Compare answers with the model's; return how many were. Raises RuntimeError on the first that differs.

    A session's answer depends on all its timesteps before: one lost, doubled or swapped between sessions shows here.
    """
    compared = 0
    for connection in sorted({sample.connection for sample in samples}):
        answers = {sample.message: sample.body for sample in samples if sample.connection == connection}
        first = connection * scenario.sessions
        length = (max(answers) + 1) * scenario.timesteps
        sessions = range(first, first + min(scenario.sessions, CHECKED_SESSIONS))
        expected = _forecasts(model, [[row_at(sent, session, step) for step in range(length)] for session in sessions])
        for message, body in answers.items():
            found = read(scenario, body)
            for place, session in enumerate(sessions):
                right = expected[place, (message + 1) * scenario.timesteps - 1]
                require_equal(found[place], right, f"message {message} of {session_id(prefix, session)}")
                compared += 1
    return compared


def require_equal(found: NDArray[np.float64], right: NDArray[np.float32], whose: str) -> None:
    """Raise RuntimeError where an answer is not the model's."""
    if found.shape != right.shape or np.abs(found - right).max() > TOLERANCE:
        raise RuntimeError(f"{whose} got a wrong forecast")


def _forecasts(model: Path, histories: list[list[Row]]) -> NDArray[np.float32]:
    """Run sessions from their beginning: (session, time, horizon, quantile)."""
    session = _session(model)
    x, *states = session.get_inputs()
    zeros = {
        state.name: np.zeros([n if isinstance(n, int) else len(histories) for n in state.shape], np.float32)
        for state in states
    }
    forecast: NDArray[np.float32] = session.run(None, {x.name: np.array(histories, np.float32), **zeros})[0]
    return forecast


@cache
def _session(model: Path) -> ort.InferenceSession:
    return ort.InferenceSession(model)
