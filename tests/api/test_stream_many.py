"""The WebSocket that carries many sessions: by ones, by arrays, in order, errors where they belong."""

import httpx
import pytest

from tests.api.wire import readings, require_problem_body, step, step_count, stream_at
from tests.conftest import OpenSession
from tests.servers import ConveyorServer


def test_one_socket_carries_many_sessions_by_ones(
    client: httpx.Client, service: ConveyorServer, open_session: OpenSession
) -> None:
    rows = readings(3)
    sessions = [open_session() for _ in range(20)]
    sent = [{"session_id": session_id, "x": row} for row in rows for session_id in sessions]
    with stream_at(service, "/v1/stream") as socket:
        socket.send(*sent)
        answers = [socket.receive() for _ in sent]
    assert [answer["session_id"] for answer in answers] == [message["session_id"] for message in sent]
    assert [answer["step"] for answer in answers] == [count for count in (1, 2, 3) for _ in sessions]
    posted = open_session()
    for row in rows:
        expected = step(client, posted, row)
    assert all(answer == expected | {"session_id": answer["session_id"]} for answer in answers[-len(sessions) :])


def test_an_array_is_answered_by_an_array(
    client: httpx.Client, service: ConveyorServer, open_session: OpenSession
) -> None:
    rows = readings(2)
    one, two = open_session(), open_session()
    sent = [
        {"session_id": one, "x": rows[0], "step": 1},
        {"session_id": two, "x": rows, "outputs": "all"},
        {"session_id": one, "x": rows[1]},
    ]
    with stream_at(service, "/v1/stream") as socket:
        first, second, third = socket.ask(sent)
    assert [(first["session_id"], first["step"]), (third["session_id"], third["step"])] == [(one, 1), (one, 2)]
    assert (second["session_id"], second["step"]) == (two, 2)
    assert second["outputs"]["hot_spot"] == [first["outputs"]["hot_spot"], third["outputs"]["hot_spot"]]


def test_an_error_in_an_array_is_its_entrys_alone(
    service: ConveyorServer, open_session: OpenSession, session_id: str
) -> None:
    good, row = open_session(), readings(1)[0]
    sent = [
        {"session_id": good, "x": row},
        {"session_id": session_id, "x": row},
        {"session_id": good, "x": [1]},
        {"session_id": good, "x": row, "step": 9},
        {"session_id": good, "x": row, "y": 1},
        {"session_id": good, "x": row},
    ]
    with stream_at(service, "/v1/stream") as socket:
        answers = socket.ask(sent)
        assert [answer["session_id"] for answer in answers] == [message["session_id"] for message in sent]
        outcomes = [answer["error"]["code"] if "error" in answer else answer["step"] for answer in answers]
        assert outcomes == [1, "session_not_found", "invalid_timestep", "step_gap", "invalid_request", 2]
        assert socket.ask({"session_id": good, "x": row})["step"] == 3


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"step": 7}, 409, "step_gap"),
        ({"x": [1]}, 422, "invalid_timestep"),
        ({"session_id": "nope"}, 404, "session_not_found"),
    ],
)
def test_no_error_of_one_session_closes_the_socket_of_many(
    client: httpx.Client,
    service: ConveyorServer,
    open_session: OpenSession,
    fields: dict[str, object],
    status: int,
    code: str,
) -> None:
    good = {"session_id": open_session(), "x": readings(1)[0]}
    with stream_at(service, "/v1/stream") as socket:
        socket.send(good, *[good | fields] * 5, good)
        answers = [socket.receive() for _ in range(7)]
    assert [answers[0]["step"], answers[-1]["step"]] == [1, 2]
    for answer in answers[1:-1]:
        require_problem_body(answer["error"], status, code)
        assert answer["session_id"] == (good | fields)["session_id"]


@pytest.mark.parametrize("form", ["[{}]", " [{}]", "\n[ {} ]\n"])
def test_an_array_may_be_spaced_as_json_may_and_binary(
    service: ConveyorServer, open_session: OpenSession, form: str
) -> None:
    message = f'{{"session_id": "{open_session()}", "x": {readings(1)[0]}}}'
    with stream_at(service, "/v1/stream") as socket:
        assert [answer["step"] for answer in socket.ask(form.format(message))] == [1]
        assert [answer["step"] for answer in socket.ask(form.format(message).encode())] == [2]


def test_an_empty_array_is_answered_by_one(service: ConveyorServer) -> None:
    with stream_at(service, "/v1/stream") as socket:
        assert socket.ask([]) == []


def test_a_gateway_of_sessions_streams_far_beyond_what_is_in_flight(
    client: httpx.Client, service: ConveyorServer, open_session: OpenSession
) -> None:
    sessions = [open_session() for _ in range(50)]
    rows = readings(60)
    with stream_at(service, "/v1/stream") as socket:
        socket.send(*([{"session_id": id_, "x": row, "step": n} for id_ in sessions] for n, row in enumerate(rows, 1)))
        frames = [socket.receive() for _ in rows]
    assert [{answer["step"] for answer in frame} for frame in frames] == [{n} for n in range(1, 61)]
    assert {step_count(client, id_) for id_ in sessions} == {60}
    expected = step(client, open_session(), rows)["outputs"]
    assert all(answer["outputs"] == expected for answer in frames[-1])
