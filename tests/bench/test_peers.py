"""What is sent to the peers and read from them. The peers themselves run in ``make bench-peers`` alone."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("picows", reason="needs the bench extra")
pytest.importorskip("psutil", reason="needs the bench extra")

from bench.peers.servers import triton
from bench.peers.wires import WIRES, PeerWire, senders
from bench.reference import rows
from bench.scenarios import Scenario

SCENARIO = Scenario("two", "", "http", 2)
FORECAST = np.arange(72, dtype=np.float32).reshape(24, 3)

by_name = {wire.name: wire for wire in WIRES}


def parts(request: bytes) -> tuple[bytes, bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    return head, body


@pytest.mark.parametrize("wire", WIRES, ids=[wire.name for wire in WIRES])
def test_each_connection_has_a_session_and_a_cycle_of_messages(wire: PeerWire) -> None:
    made = senders(wire, SCENARIO, "p", rows())
    assert [sender.ids for sender in made] == [["p-0"], ["p-1"]]
    assert all(len(sender.messages) == len(rows()) for sender in made)
    for sender in made:
        parts(sender.messages[0])


def test_triton_is_sent_its_sequence_as_json_and_as_binary() -> None:
    row = rows()[0]
    _, body = parts(by_name["triton-json"].message("p-4", 4, row))
    content = json.loads(body)
    assert content["parameters"] == {"sequence_id": 5, "sequence_start": False, "sequence_end": False}
    assert content["inputs"][0]["data"] == row
    head, body = parts(by_name["triton-binary"].message("p-4", 4, row))
    length = int(head.split(b"Inference-Header-Content-Length: ")[1].split(b"\r\n")[0])
    assert json.loads(body[:length])["inputs"][0]["parameters"] == {"binary_data_size": 32}
    assert np.frombuffer(body[length:], np.float32) == pytest.approx(row, rel=1e-6)


def test_their_answers_are_read() -> None:
    output = {"name": "hot_spot", "shape": [1, 24, 3], "datatype": "FP32"}
    as_json = json.dumps({"outputs": [output | {"data": FORECAST.ravel().tolist()}]}).encode()
    as_binary = json.dumps({"outputs": [output]}).encode() + FORECAST.tobytes()
    as_conveyor = json.dumps({"outputs": {"hot_spot": FORECAST.tolist()}}).encode()
    for name, body in (("triton-json", as_json), ("triton-binary", as_binary), ("litserve", as_conveyor)):
        (found,) = by_name[name].read(SCENARIO, body)
        assert (found == FORECAST).all()
    with pytest.raises(RuntimeError, match="an answer cannot be read"):
        by_name["triton-json"].read(SCENARIO, b'{"outputs":[]}')


def test_an_environment_without_the_peers_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="run make bench-peers"), triton(tmp_path, tmp_path, set()):
        pass
