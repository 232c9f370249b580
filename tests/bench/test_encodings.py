"""What goes over a socket as MessagePack is what goes over it as JSON."""

import pytest

pytest.importorskip("picows", reason="needs the bench extra")
pytest.importorskip("psutil", reason="needs the bench extra")

import msgspec
import numpy as np

from bench.encodings import ENCODINGS
from bench.reference import outputs_of, rows
from bench.scenarios import Scenario
from bench.traffic import senders

FORECAST = np.arange(72, dtype=np.float32).reshape(24, 3)


def scenario(sessions: int = 2, timesteps: int = 1) -> Scenario:
    return Scenario("any", "", "websocket", 1, sessions=sessions, timesteps=timesteps, encoding="msgpack")


def test_a_frame_is_an_array_of_maps_whose_timesteps_are_tensors() -> None:
    sent = rows()
    (sender,) = senders(scenario(), "p", sent)
    first, second = msgspec.msgpack.decode(sender.messages[0])
    assert (first["session_id"], second["session_id"]) == ("p-0", "p-1")
    assert first["x"]["shape"] == [len(sent[0])]
    assert np.frombuffer(first["x"]["data"], "<f4") == pytest.approx(sent[0], rel=1e-6)


def test_a_chunk_is_a_tensor_of_timesteps_and_features() -> None:
    sent = rows()
    (sender,) = senders(scenario(sessions=1, timesteps=5), "p", sent)
    x = msgspec.msgpack.decode(sender.messages[0])["x"]
    assert x["shape"] == [5, len(sent[0])]
    assert len(x["data"]) == 4 * 5 * len(sent[0])


def test_answers_are_read_and_counted() -> None:
    tensor = {"shape": FORECAST.shape, "data": FORECAST.tobytes()}
    body = msgspec.msgpack.encode(
        [{"session_id": f"p-{i}", "step": 1, "outputs": {"hot_spot": tensor}} for i in (0, 1)]
    )
    assert body.count(ENCODINGS["msgpack"].marker) == 2
    found = outputs_of(scenario(), body)
    assert len(found) == 2
    assert all((each == FORECAST).all() for each in found)


@pytest.mark.parametrize(
    "answer", [b"\xc1", msgspec.msgpack.encode([{"error": {}}]), msgspec.msgpack.encode([{"outputs": {"hot_spot": 1}}])]
)
def test_an_answer_that_holds_no_tensor_is_a_failure(answer: bytes) -> None:
    with pytest.raises(RuntimeError, match="an answer cannot be read"):
        outputs_of(scenario(), answer)
