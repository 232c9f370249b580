"""A timestep for each of many sessions in one message, over every wire: as columns inside, and nobody can tell."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from websockets.typing import Subprotocol

from tests.api.wire import readings, step, stream_at
from tests.conftest import OpenSession
from tests.servers import ConveyorServer

SESSIONS = 12
ROWS = readings(SESSIONS)
BOTH = {"content-type": "application/msgpack", "accept": "application/msgpack"}

Ask = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
"""Sends steps in one message, with `x` as rows of numbers; returns the answers with outputs as JSON has them."""


def tensor(row: list[float]) -> dict[str, Any]:
    return {"shape": [len(row)], "data": np.array(row, "<f4").tobytes()}


def plain(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer whose tensors are lists: float32 in its shortest decimal form."""
    if "outputs" in answer:
        found = answer["outputs"]["hot_spot"]
        array = np.frombuffer(found["data"], "<f4").reshape(found["shape"])
        answer["outputs"] = {"hot_spot": [[float(str(each)) for each in row] for row in array]}
    return answer


def packed(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each | {"x": tensor(each["x"])} for each in steps]


@contextmanager
def asking(wire: str, service: ConveyorServer, client: httpx.Client) -> Iterator[Ask]:
    def post(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        response = client.post("/v1/steps", json={"steps": steps})
        assert response.status_code == 200, response.text
        found: list[dict[str, Any]] = response.json()["results"]
        return found

    def post_packed(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        content = msgspec.msgpack.encode({"steps": packed(steps)})
        response = client.post("/v1/steps", content=content, headers=BOTH)
        assert response.status_code == 200, response.text
        return [plain(each) for each in msgspec.msgpack.decode(response.content)["results"]]

    if wire == "REST":
        yield post
    elif wire == "REST, MessagePack":
        yield post_packed
    elif wire == "WebSocket":
        with stream_at(service, "/v1/stream") as socket:
            yield socket.ask
    else:
        with stream_at(service, "/v1/stream", subprotocols=[Subprotocol("conveyor.v1.msgpack")]) as socket:

            def ask(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
                socket.send(msgspec.msgpack.encode(packed(steps)))
                content = socket.socket.recv(timeout=20)
                assert isinstance(content, bytes)
                return [plain(each) for each in msgspec.msgpack.decode(content)]

            yield ask


@pytest.fixture(params=["REST", "REST, MessagePack", "WebSocket", "WebSocket, MessagePack"])
def ask(request: pytest.FixtureRequest, service: ConveyorServer, client: httpx.Client) -> Iterator[Ask]:
    with asking(request.param, service, client) as found:
        yield found


def test_it_is_answered_as_single_steps_are(ask: Ask, client: httpx.Client, open_session: OpenSession) -> None:
    together, alone = ([open_session() for _ in range(SESSIONS)] for _ in range(2))
    for t in range(4):
        rows = [[float(np.float32(each)) for each in ROWS[(i + t) % SESSIONS]] for i in range(SESSIONS)]
        answers = ask([{"session_id": id_, "x": row, "step": t + 1} for id_, row in zip(together, rows, strict=True)])
        for id_, other, row, answer in zip(together, alone, rows, answers, strict=True):
            assert answer == step(client, other, row) | {"session_id": id_}


def test_each_of_it_fails_by_itself(ask: Ask, open_session: OpenSession) -> None:
    ids = [open_session() for _ in range(SESSIONS)]
    assert all(answer["step"] == 1 for answer in ask([{"session_id": id_, "x": ROWS[0]} for id_ in ids]))
    steps: list[dict[str, Any]] = [{"session_id": id_, "x": ROWS[1], "step": 2} for id_ in ids]
    steps[1]["session_id"] = "nobody"
    steps[3]["step"] = 5
    steps[4]["step"] = 1
    steps[6]["x"] = [1e30, *ROWS[1][1:]]
    steps[8]["session_id"] = "no such id / at all"
    answers = ask(steps)
    assert [answer["session_id"] for answer in answers] == [each["session_id"] for each in steps]
    told = [
        answer["error"]["code"] if "error" in answer else (answer["step"], answer["replayed"]) for answer in answers
    ]
    fine = (2, False)
    assert told == [
        fine, "session_not_found", fine, "step_gap", (1, True), fine, "invalid_timestep", fine, "session_not_found",
        fine, fine, fine,
    ]  # fmt: skip
    assert [answer["step"] for answer in ask(steps[9:] + steps[:1])] == [2] * 4  # replayed


def test_a_session_that_is_in_it_twice_takes_both(ask: Ask, open_session: OpenSession) -> None:
    ids = [open_session() for _ in range(SESSIONS - 1)]
    answers = ask([{"session_id": id_, "x": row} for id_, row in zip([*ids, ids[0]], ROWS, strict=True)])
    assert [answer["step"] for answer in answers] == [1] * (SESSIONS - 1) + [2]


def test_rows_of_several_widths_are_refused_by_themselves(ask: Ask, open_session: OpenSession) -> None:
    ids = [open_session() for _ in range(SESSIONS)]
    steps: list[dict[str, Any]] = [{"session_id": id_, "x": row} for id_, row in zip(ids, ROWS, strict=True)]
    steps[5]["x"] = ROWS[5][:3]
    answers = ask(steps)
    assert answers[5]["error"]["detail"] == "x has 3 numbers; the model takes 8 per timestep"
    assert [answer.get("step") for answer in answers] == [1] * 5 + [None] + [1] * (SESSIONS - 6)


EMPTY = {"shape": [], "data": b""}


@pytest.mark.parametrize("bad", [EMPTY, {"shape": [8]}, {"data": bytes(32)}, {"shape": [2, 8], "data": bytes(32)}])
@pytest.mark.parametrize("place", [0, 3])
def test_a_tensor_that_is_none_fails_by_itself(
    client: httpx.Client, open_session: OpenSession, bad: dict[str, Any], place: int
) -> None:
    steps: list[dict[str, Any]] = [{"session_id": open_session(), "x": tensor(row)} for row in ROWS[:8]]
    steps[place]["x"] = bad
    response = client.post("/v1/steps", content=msgspec.msgpack.encode({"steps": steps}), headers=BOTH)
    results = msgspec.msgpack.decode(response.content)["results"]
    assert [result.get("step") for result in results] == [None if i == place else 1 for i in range(8)]
    assert results[place]["error"]["code"] == "invalid_request"
