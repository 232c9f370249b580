"""MessagePack: the messages of the JSON wire, their arrays as tensors, bit for bit the same numbers."""

from collections.abc import Mapping
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from websockets.typing import Subprotocol

from tests.api.wire import FEATURES, Stream, readings, require_problem, require_problem_body, step, stream, stream_at
from tests.conftest import OpenSession
from tests.servers import ConveyorServer

MEDIA_TYPE = "application/msgpack"
BOTH = {"content-type": MEDIA_TYPE, "accept": MEDIA_TYPE}
SPOKEN = {"subprotocols": [Subprotocol("conveyor.v1.msgpack")]}
ROW = readings(1)[0]


def pack(message: object) -> bytes:
    return msgspec.msgpack.encode(message)


def tensor(numbers: object) -> dict[str, Any]:
    array = np.array(numbers, "<f4")
    return {"shape": array.shape, "data": array.tobytes()}


def numbers(packed: Mapping[str, Any]) -> Any:
    """Return a tensor as JSON has it: float32 in its shortest decimal form."""
    assert packed.keys() == {"shape", "data"}
    array = np.frombuffer(packed["data"], "<f4").reshape(packed["shape"])
    return [[float(str(each)) for each in row] for row in array]


def post(client: httpx.Client, path: str, message: object) -> Any:
    response = client.post(path, content=pack(message), headers=BOTH)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == MEDIA_TYPE
    return msgspec.msgpack.decode(response.content)


def ask(socket: Stream, message: object) -> Any:
    socket.send(pack(message))
    return unpacked(socket)


def unpacked(socket: Stream) -> Any:
    content = socket.socket.recv(timeout=20)
    assert isinstance(content, bytes)
    return msgspec.msgpack.decode(content)


X: list[Any] = [
    pytest.param(ROW, id="numbers"),
    pytest.param(dict(zip(FEATURES, ROW, strict=True)), id="by name"),
    pytest.param(tensor(ROW), id="tensor"),
    pytest.param(tensor([ROW]), id="tensor of one timestep"),
    pytest.param([ROW], id="chunk of one timestep"),
]


@pytest.mark.parametrize("x", X)
def test_a_posted_step_is_the_same_in_both_encodings(
    client: httpx.Client, open_session: OpenSession, x: object
) -> None:
    expected = step(client, open_session(), ROW)
    session_id = open_session()
    answer = post(client, f"/v1/sessions/{session_id}/steps", {"x": x, "step": 1})
    assert answer == {
        "session_id": session_id,
        "step": 1,
        "replayed": False,
        "outputs": {"hot_spot": answer["outputs"]["hot_spot"]},
    }
    assert numbers(answer["outputs"]["hot_spot"]) == expected["outputs"]["hot_spot"]


def test_a_chunk_as_a_tensor_has_all_of_its_outputs(client: httpx.Client, open_session: OpenSession) -> None:
    chunk = readings(5)
    expected = step(client, open_session(), chunk, outputs="all")["outputs"]["hot_spot"]
    answer = post(client, f"/v1/sessions/{open_session()}/steps", {"x": tensor(chunk), "outputs": "all"})
    packed = answer["outputs"]["hot_spot"]
    assert packed["shape"] == [5, 24, 3]
    assert packed["data"] == np.array(expected, "<f4").tobytes()


def test_either_way_may_be_json(client: httpx.Client, open_session: OpenSession) -> None:
    path = f"/v1/sessions/{open_session()}/steps"
    packed = client.post(path, json={"x": ROW, "step": 1}, headers={"accept": f"{MEDIA_TYPE}, application/json;q=0.5"})
    assert packed.headers["content-type"] == MEDIA_TYPE
    plain = client.post(path, content=pack({"x": ROW, "step": 1}), headers={"content-type": MEDIA_TYPE})
    assert plain.headers["content-type"] == "application/json"
    told = msgspec.msgpack.decode(packed.content)["outputs"]["hot_spot"]
    assert plain.json()["replayed"]
    assert numbers(told) == plain.json()["outputs"]["hot_spot"]


def test_many_steps_in_one_call(client: httpx.Client, open_session: OpenSession) -> None:
    ids = [open_session() for _ in range(3)]
    steps: list[dict[str, Any]] = [{"session_id": id_, "x": tensor(ROW), "step": 1} for id_ in ids]
    steps[1]["x"] = tensor(ROW[:3])
    results = post(client, "/v1/steps", {"steps": [*steps, {"session_id": ids[0]}]})["results"]
    assert [result["session_id"] for result in results] == [*ids, ids[0]]
    assert [result.get("step") for result in results] == [1, None, 1, None]
    require_problem_body(results[1]["error"], 422, "invalid_timestep", "x has 3 numbers; the model takes 8")
    require_problem_body(results[3]["error"], 422, "invalid_request", "missing required field `x`")


BAD: list[Any] = [
    pytest.param({"x": tensor(ROW) | {"shape": [9]}}, "invalid_request", "shape [9] and 32 bytes", id="too few bytes"),
    pytest.param({"x": {"shape": [8]}}, "invalid_request", "shape [8] and no bytes", id="no data"),
    pytest.param({"x": {"data": b"1234"}}, "invalid_request", "this has data, shape None", id="no shape"),
    pytest.param({"x": tensor([[ROW]])}, "invalid_request", "[features] or [timesteps, features]", id="three axes"),
    pytest.param({"x": {"shape": [-1, -8], "data": bytes(32)}}, "invalid_request", "shape [-1, -8]", id="negative"),
    pytest.param({"x": {"shape": [], "data": bytes(4)}}, "invalid_request", "shape []", id="no axis"),
    pytest.param({"x": tensor(ROW) | {"dtype": 1.0}}, "invalid_request", "this has data, dtype, shape", id="unknown"),
    pytest.param({"x": tensor([np.nan, *ROW[1:]])}, "invalid_timestep", "load is nan", id="not finite"),
    pytest.param({"x": [float("inf"), *ROW[1:]]}, "invalid_timestep", "load is inf", id="infinite"),
    pytest.param({"x": dict.fromkeys(FEATURES, b"1")}, "invalid_request", "load is no number", id="bytes for numbers"),
    pytest.param({"x": {"load": [1]}}, "invalid_request", "load is no number", id="a list for a number"),
    pytest.param({"x": tensor(ROW), "step": "1"}, "invalid_request", "got `str` - at `$.step`", id="a string"),
]


@pytest.mark.parametrize(("message", "code", "says"), BAD)
def test_what_is_wrong_is_said_and_nothing_advances(
    client: httpx.Client, service: ConveyorServer, open_session: OpenSession, message: object, code: str, says: str
) -> None:
    session_id = open_session()
    response = client.post(f"/v1/sessions/{session_id}/steps", content=pack(message), headers=BOTH)
    require_problem(response, 422, code, says)
    with stream(service, session_id, **SPOKEN) as socket:
        assert unpacked(socket)["step"] == 0
        require_problem_body(ask(socket, message)["error"], 422, code, says)
        assert ask(socket, {"x": tensor(ROW), "step": 1})["step"] == 1


@pytest.mark.parametrize("content", [b"", b"\xc1", pack({"x": ROW})[:-1], b'{"x": [1]}', pack([1]), b"\x91" * 5000])
def test_what_is_no_message_is_refused(client: httpx.Client, open_session: OpenSession, content: bytes) -> None:
    response = client.post(f"/v1/sessions/{open_session()}/steps", content=content, headers=BOTH)
    require_problem(response, 422, "invalid_request")


def test_a_socket_speaks_what_its_client_asked_for(
    client: httpx.Client, service: ConveyorServer, open_session: OpenSession
) -> None:
    rows = readings(3)
    expected = [step(client, posted, row)["outputs"]["hot_spot"] for posted in [open_session()] for row in rows]
    session_id = open_session()
    with stream(service, session_id, **SPOKEN) as socket:
        assert socket.socket.subprotocol == "conveyor.v1.msgpack"
        hello = unpacked(socket)
        assert hello == {"session_id": session_id, "model": "hotspot", "version": "1", "step": 0}
        answers = [ask(socket, {"x": tensor(row)}) for row in rows]
    assert [answer["step"] for answer in answers] == [1, 2, 3]
    assert [numbers(answer["outputs"]["hot_spot"]) for answer in answers] == expected


def test_the_first_offer_that_is_understood_is_taken(service: ConveyorServer, open_session: OpenSession) -> None:
    offers = [Subprotocol(name) for name in ("mqtt", "conveyor.v1.json", "conveyor.v1.msgpack")]
    with stream(service, open_session(), subprotocols=offers) as socket:
        assert socket.socket.subprotocol == "conveyor.v1.json"
        assert socket.receive()["step"] == 0


def test_text_on_a_socket_that_speaks_bytes_is_refused(service: ConveyorServer, open_session: OpenSession) -> None:
    with stream(service, open_session(), **SPOKEN) as socket:
        unpacked(socket)
        socket.send('{"x": [1]}')
        require_problem_body(unpacked(socket)["error"], 422, "invalid_request", "the message is text")


@pytest.mark.parametrize("count", [1, 15, 16, 300])
def test_a_gateways_socket_takes_arrays_of_every_length(
    service: ConveyorServer, open_session: OpenSession, count: int
) -> None:
    """MessagePack writes arrays of up to 15, of up to 65,535 and longer ones in three ways."""
    session_id = open_session()
    with stream_at(service, "/v1/stream", **SPOKEN) as socket:
        steps = [{"session_id": session_id, "x": tensor(ROW), "step": number} for number in range(1, count + 1)]
        answers = ask(socket, steps)
        assert [answer["step"] for answer in answers] == list(range(1, count + 1))
        one = ask(socket, {"session_id": session_id, "x": tensor(ROW)})
        assert one["step"] == count + 1
        assert ask(socket, b"\xdd\x00\x00\x00\x01")["error"]["code"] == "invalid_request"


@pytest.mark.parametrize("numbered", [False, True], ids=["whatever is next", "numbered"])
def test_a_gateways_messages_are_answered_alike_however_often_they_come(
    service: ConveyorServer, client: httpx.Client, open_session: OpenSession, numbered: bool
) -> None:
    """From the third on they are read, and from the fourth on answered, by what is known of the ones before."""
    ids, alone = [[open_session() for _ in range(8)] for _ in range(2)]
    rows = readings(8 * 140, seed=7)
    with stream_at(service, "/v1/stream", **SPOKEN) as socket:
        for number in range(1, 141):  # beyond 127, a number takes a byte more
            own = rows[8 * (number - 1) : 8 * number]
            steps = [{"x": tensor(row)} | ({"step": number} if numbered else {}) for row in own]
            answers = ask(socket, named(ids, steps))
            assert [(answer["session_id"], answer["step"]) for answer in answers] == [(name, number) for name in ids]
            assert [answer["replayed"] for answer in answers] == [False] * 8
            expected = post(client, "/v1/steps", {"steps": named(alone, steps)})["results"]
            assert [answer["outputs"] for answer in answers] == [answer["outputs"] for answer in expected]
        last = [step | {"step": 140} for step in steps]
        again = ask(socket, named(ids, last))
        assert [answer["replayed"] for answer in again] == [True] * 8
        assert [answer["outputs"] for answer in again] == [answer["outputs"] for answer in expected]
        last[3]["step"] = 142
        refused = [answer.get("error", {}).get("code") for answer in ask(socket, named(ids, last))]
        assert refused == [None] * 3 + ["step_gap"] + [None] * 4


def named(ids: list[str], steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"session_id": name, **step} for name, step in zip(ids, steps, strict=True)]


def test_json_in_binary_messages_is_read_as_json_however_often_it_comes(
    service: ConveyorServer, open_session: OpenSession
) -> None:
    ids = [open_session() for _ in range(8)]
    with stream_at(service, "/v1/stream") as socket:
        for number, row in enumerate(readings(6), 1):
            socket.send(msgspec.json.encode([{"session_id": name, "x": row} for name in ids]))
            assert [answer["step"] for answer in socket.receive()] == [number] * 8


def test_zeros_whose_place_cannot_be_told_are_read_all_the_same(
    service: ConveyorServer, open_session: OpenSession
) -> None:
    ids = [open_session() for _ in range(8)]
    with stream_at(service, "/v1/stream", **SPOKEN) as socket:
        for number in range(1, 7):
            answers = ask(socket, [{"session_id": name, "x": tensor([0] * 8)} for name in ids])
            assert [answer["step"] for answer in answers] == [number] * 8
