"""What the tests of the wire say often: readings to send, sockets to send them on, the form of every error."""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close
from websockets.sync.client import ClientConnection, connect

from tests.servers import ConveyorServer

FEATURES = ("load", "ambient", "top_oil", "hot_spot", "cooling_stage", "hour_sin", "hour_cos", "weekend")
MEDIA_TYPE = "application/problem+json"
MEMBERS = {"type", "title", "status", "detail", "code"}


def readings(count: int, seed: int = 0) -> list[list[float]]:
    """Return timesteps of the demo model, the same for the same seed."""
    draw = random.Random(seed)
    return [[round(draw.uniform(0, 50), 3) for _ in FEATURES] for _ in range(count)]


def step(client: httpx.Client, session_id: str, x: object, **fields: object) -> dict[str, Any]:
    """Send a step that is expected to work, and return the answer."""
    response = client.post(f"/v1/sessions/{session_id}/steps", json={"x": x, **fields})
    assert response.status_code == 200, response.text
    return dict(response.json())


def step_count(client: httpx.Client, session_id: str) -> int:
    return int(client.get(f"/v1/sessions/{session_id}").json()["step"])


def require_problem(response: httpx.Response, status: int, code: str, *fragments: str) -> None:
    """Assert that a response is the problem that was expected, in the form that every problem has."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == MEDIA_TYPE
    problem = response.json()
    require_problem_body(problem, status, code, *fragments)
    if status in (429, 503):
        assert int(response.headers["retry-after"]) >= problem["retry_after_s"] > 0


def require_problem_body(problem: dict[str, Any], status: int, code: str, *fragments: str) -> None:
    assert problem.keys() >= MEMBERS, problem
    assert (problem["status"], problem["code"]) == (status, code), problem
    assert problem["type"] == f"urn:conveyor:error:{code}"
    for fragment in fragments:
        assert fragment in problem["detail"], problem["detail"]


class Stream:
    """A WebSocket client that speaks JSON."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    def send(self, *messages: object) -> None:
        """Send messages without waiting for answers; text and bytes as they are, the rest as JSON."""
        for message in messages:
            self.socket.send(message if isinstance(message, str | bytes) else json.dumps(message))

    def receive(self) -> Any:
        return json.loads(self.socket.recv(timeout=20))

    def ask(self, message: object) -> Any:
        self.send(message)
        return self.receive()

    def receive_until_closed(self) -> list[Any]:
        received = []
        with suppress(ConnectionClosed):
            while True:
                received.append(self.receive())
        return received

    def closed(self) -> Close:
        """Wait until the server closes the socket with nothing more to say, and return how it did."""
        with pytest.raises(ConnectionClosed) as end:
            self.socket.recv(timeout=20)
        assert end.value.rcvd is not None, "the connection broke without a close frame"
        return end.value.rcvd


@contextmanager
def stream(service: ConveyorServer, session_id: str, query: str = "", **options: Any) -> Iterator[Stream]:
    """Open one session's socket; the first message to receive is the server's hello."""
    with stream_at(service, f"/v1/sessions/{session_id}/stream{query}", **options) as opened:
        yield opened


@contextmanager
def stream_at(service: ConveyorServer, path: str, **options: Any) -> Iterator[Stream]:
    with connect(service.ws_url + path, max_size=None, **options) as socket:
        yield Stream(socket)
