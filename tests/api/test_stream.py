"""One session's WebSocket: hello, answers in order, errors in band, closing, coming back."""

import contextlib
import signal
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from tests.api.wire import readings, require_problem_body, step, step_count, stream
from tests.conftest import OpenSession
from tests.servers import ConveyorServer


def test_a_socket_says_first_where_its_session_is(service: ConveyorServer, open_session: OpenSession) -> None:
    session_id = open_session(history=readings(3))
    with stream(service, session_id) as socket:
        assert socket.receive() == {"session_id": session_id, "model": "hotspot", "version": "1", "step": 3}


@pytest.mark.parametrize("query", ["?model=hotspot", "?model=hotspot&version=1", "?model=hotspot&ttl_s=60"])
def test_a_socket_opens_the_session_of_the_model_that_it_names(
    client: httpx.Client, service: ConveyorServer, session_id: str, query: str
) -> None:
    for expected_step in (0, 1):
        with stream(service, session_id, query) as socket:
            assert socket.receive()["step"] == expected_step
            socket.ask({"x": readings(1)[0]})
    assert step_count(client, session_id) == 2


def test_streamed_steps_are_posted_steps(
    client: httpx.Client, service: ConveyorServer, open_session: OpenSession
) -> None:
    rows = readings(4)
    posted = open_session()
    expected = [step(client, posted, row) for row in rows]
    with stream(service, open_session()) as socket:
        socket.receive()
        answers = [socket.ask({"x": row}) for row in rows]
    assert answers == [{"step": answer["step"], "outputs": answer["outputs"]} for answer in expected]


def test_a_chunk_streams_with_all_of_its_outputs(service: ConveyorServer, open_session: OpenSession) -> None:
    with stream(service, open_session()) as one_by_one, stream(service, open_session()) as at_once:
        one_by_one.receive()
        at_once.receive()
        outputs = [one_by_one.ask({"x": row})["outputs"]["hot_spot"] for row in readings(6)]
        assert at_once.ask({"x": readings(6), "outputs": "all"}) == {"step": 6, "outputs": {"hot_spot": outputs}}


def test_more_messages_than_may_be_in_flight_are_answered_in_order(
    client: httpx.Client, service: ConveyorServer, open_session: OpenSession
) -> None:
    rows = readings(300)
    with stream(service, open_session()) as socket:
        socket.receive()
        socket.send(*({"x": row, "step": number} for number, row in enumerate(rows, start=1)))
        answers = [socket.receive() for _ in rows]
    assert [answer["step"] for answer in answers] == list(range(1, 301))
    assert answers[-1]["outputs"] == step(client, open_session(), rows)["outputs"]


def test_text_and_binary_frames_are_the_same(service: ConveyorServer, open_session: OpenSession) -> None:
    with stream(service, open_session()) as socket:
        socket.receive()
        text = f'{{"x": {readings(1)[0]}, "step": 1}}'
        assert socket.ask(text.encode()) | {"replayed": True} == socket.ask(text)


def test_an_error_is_answered_in_its_place(service: ConveyorServer, open_session: OpenSession) -> None:
    row = readings(1)[0]
    with stream(service, open_session()) as socket:
        socket.receive()
        socket.send({"x": row}, {"x": [1]}, "{", {"x": row})
        first, narrow, broken, last = (socket.receive() for _ in range(4))
    assert [first["step"], last["step"]] == [1, 2]
    require_problem_body(narrow["error"], 422, "invalid_timestep", "the model takes 8")
    require_problem_body(broken["error"], 422, "invalid_request", "not JSON")


def test_a_step_sent_again_gets_the_stored_answer(service: ConveyorServer, open_session: OpenSession) -> None:
    message = {"x": readings(1)[0], "step": 1}
    with stream(service, open_session()) as socket:
        socket.receive()
        applied = socket.ask(message)
        assert "replayed" not in applied
        assert socket.ask(message) == applied | {"replayed": True}


@pytest.mark.parametrize(("number", "code"), [(1, "step_conflict"), (5, "step_gap")])
def test_a_wrong_number_closes_a_pipelined_socket_alone(
    client: httpx.Client, service: ConveyorServer, open_session: OpenSession, number: int, code: str
) -> None:
    session_id = open_session(history=readings(3))
    wrong = {"x": readings(1)[0], "step": number}
    with stream(service, session_id) as socket:
        socket.receive()
        for _ in range(2):  # asked and awaited: the client can put it right
            error = socket.ask(wrong)["error"]
            require_problem_body(error, 409, code, "the next is 4")
            assert error["current_step"] == 3
        service.signal(signal.SIGSTOP)  # else it may answer each before the next one is sent
        try:
            socket.send(*[wrong] * 20)  # and now sent on the belief that it would work
        finally:
            service.signal(signal.SIGCONT)
        (answer,) = socket.receive_until_closed()
        assert socket.closed().code == 4409
    assert answer["error"]["code"] == code


def test_a_deleted_session_closes_its_socket(
    client: httpx.Client, service: ConveyorServer, open_session: OpenSession
) -> None:
    session_id = open_session()
    with stream(service, session_id) as socket:
        socket.receive()
        socket.ask({"x": readings(1)[0]})
        client.delete(f"/v1/sessions/{session_id}")
        require_problem_body(socket.ask({"x": readings(1)[0]})["error"], 404, "session_not_found")
        assert socket.closed().code == 4404


def test_a_client_that_comes_back_goes_on_where_the_hello_says(
    client: httpx.Client, service: ConveyorServer, open_session: OpenSession
) -> None:
    """The rule of docs/wire.md: whatever was lost with a connection, the next step is the hello's and one."""
    rows = readings(200)
    session_id, undisturbed = open_session(), open_session()
    for lost_after in (1, 17, 60):
        with contextlib.suppress(ConnectionClosed), stream(service, session_id) as socket:
            at = socket.receive()["step"]
            socket.send(*({"x": row, "step": at + 1 + i} for i, row in enumerate(rows[at : at + 40])))
            for _ in range(min(lost_after, 40) // 2):
                socket.receive()
            socket.socket.socket.close()  # as a network does, without a word
    last: dict[str, Any] = {}
    while last.get("step") != len(rows):
        # What was sent before the cut may be applied after the hello: 4409, and the client connects again.
        with contextlib.suppress(ConnectionClosed), stream(service, session_id) as socket:
            at = socket.receive()["step"]
            assert 0 < at < len(rows)
            socket.send(*({"x": row, "step": at + 1 + i} for i, row in enumerate(rows[at:])))
            for _ in rows[at:]:
                last = socket.receive()
    assert last["outputs"] == step(client, undisturbed, rows)["outputs"]


def test_two_sockets_on_one_session_never_apply_a_step_twice(
    service: ConveyorServer, client: httpx.Client, open_session: OpenSession
) -> None:
    session_id, alone = open_session(), open_session()
    rows = readings(30)
    with stream(service, session_id) as first, stream(service, session_id) as second:
        for socket in (first, second):
            socket.receive()
        for number, row in enumerate(rows, start=1):
            answers = [socket.ask({"x": row, "step": number}) for socket in (first, second)]
            assert answers[1] == answers[0] | {"replayed": True}
    assert answers[0]["outputs"] == step(client, alone, rows)["outputs"]


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["conveyor.v1.json"], "conveyor.v1.json"), (["other", "conveyor.v1.json"], "conveyor.v1.json"), (None, None)],
)
def test_json_is_the_subprotocol_unless_another_is_agreed(
    service: ConveyorServer, open_session: OpenSession, offered: list[str] | None, chosen: str | None
) -> None:
    with stream(service, open_session(), subprotocols=offered) as socket:
        assert socket.receive()["step"] == 0
        assert socket.socket.subprotocol == chosen
