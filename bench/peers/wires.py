"""How a timestep is sent to each peer, and how its forecast is read."""

import json
from collections.abc import Callable
from http.client import HTTPConnection
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from bench.peers.servers import LITSERVE, TRITON
from bench.reference import outputs_of
from bench.scenarios import Scenario
from bench.servers import Server
from bench.traffic import Row, Sender, request, row_at, session_id

_INFER = "/v2/models/hotspot/infer"
_HORIZON, _QUANTILES = 24, 3
_FORECAST_BYTES = 4 * _HORIZON * _QUANTILES


class PeerWire(NamedTuple):
    """A way to talk to the peer `server`. `message` makes a request from the session's name, its number and a row."""

    name: str
    title: str
    server: str
    message: Callable[[str, int, Row], bytes]
    read: Callable[[Scenario, bytes], list[NDArray[np.float64]]]


def senders(wire: PeerWire, scenario: Scenario, prefix: str, rows: list[Row]) -> list[Sender]:
    """Return one sender per connection, each with a session of its own."""
    made = []
    for session in range(scenario.connections):
        id_ = session_id(prefix, session)
        messages = [wire.message(id_, session, row_at(rows, session, step)) for step in range(len(rows))]
        made.append(Sender("", [id_], messages))
    return made


def start_sequences(server: Server, count: int) -> None:
    """Set Triton's sequences of the sessions 0 to `count` to before their first timestep."""
    address = urlsplit(server.url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=10)
    for session in range(count):
        connection.request("POST", _INFER, json.dumps(_inference(session, [0.0] * 8, start=True)))
        response = connection.getresponse()
        if (content := response.read()) and response.status != 200:
            raise RuntimeError(f"Triton did not start a sequence: {response.status} {content[:300]!r}")
    connection.close()


def _inference(session: int, row: Row, *, start: bool = False) -> dict[str, object]:
    return {
        # Triton's sequences are numbered from 1.
        "parameters": {"sequence_id": session + 1, "sequence_start": start, "sequence_end": False},
        "inputs": [{"name": "x", "shape": [1, len(row)], "datatype": "FP32", "data": row}],
    }


def _triton_json(_: str, session: int, row: Row) -> bytes:
    return request(_INFER, json.dumps(_inference(session, row), separators=(",", ":")).encode())


def _read_triton_json(_: Scenario, body: bytes) -> list[NDArray[np.float64]]:
    try:
        (output,) = json.loads(body)["outputs"]
        return [np.array(output["data"], np.float64).reshape(output["shape"][1:])]
    except (ValueError, TypeError, LookupError) as error:
        raise RuntimeError(f"an answer cannot be read ({error}): {body[:300]!r}") from error


def _triton_binary(_: str, session: int, row: Row) -> bytes:
    x = np.array(row, "<f4").tobytes()
    content = _inference(session, row) | {
        "inputs": [
            {"name": "x", "shape": [1, len(row)], "datatype": "FP32", "parameters": {"binary_data_size": len(x)}}
        ],
        "outputs": [{"name": "hot_spot", "parameters": {"binary_data": True}}],
    }
    head = json.dumps(content, separators=(",", ":")).encode()
    return request(
        _INFER,
        head + x,
        content_type="application/octet-stream",
        further=f"Inference-Header-Content-Length: {len(head)}\r\n",
    )


def _read_triton_binary(_: Scenario, body: bytes) -> list[NDArray[np.float64]]:
    forecast = np.frombuffer(body[-_FORECAST_BYTES:], "<f4").astype(np.float64)
    return [forecast.reshape(_HORIZON, _QUANTILES)]


def _litserve(id_: str, _: int, row: Row) -> bytes:
    return request("/predict", json.dumps({"session_id": id_, "x": row}, separators=(",", ":")).encode())


WIRES = (
    PeerWire("triton-json", "Triton, HTTP, JSON", TRITON, _triton_json, _read_triton_json),
    PeerWire("triton-binary", "Triton, HTTP, binary", TRITON, _triton_binary, _read_triton_binary),
    PeerWire("litserve", "LitServe, HTTP, JSON", LITSERVE, _litserve, outputs_of),
)
