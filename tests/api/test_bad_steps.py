"""No bad step advances a session, wherever it is sent, and each is told what is wrong with it."""

from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.api.bad_steps import BAD_STEPS, BadStep
from tests.api.wire import (
    FEATURES,
    readings,
    require_problem,
    require_problem_body,
    step,
    step_count,
    stream,
    stream_at,
)
from tests.conftest import OpenSession
from tests.servers import ConveyorServer

ADDRESSABLE = [bad for bad in BAD_STEPS if bad.text.startswith('{"x"')]
"""Those that can name a session."""

each_bad_step = pytest.mark.parametrize("bad", BAD_STEPS, ids=lambda bad: bad.what)
each_addressable = pytest.mark.parametrize("bad", ADDRESSABLE, ids=lambda bad: bad.what)


@pytest.fixture
def at_step_2(client: httpx.Client, open_session: OpenSession) -> Iterator[str]:
    """A session at step 2, which the test must leave there, and which must go on as if nothing had been."""
    session_id, untouched = (open_session(history=readings(2)) for _ in range(2))
    yield session_id
    assert step_count(client, session_id) == 2
    following = readings(1, seed=1)[0]
    assert step(client, session_id, following)["outputs"] == step(client, untouched, following)["outputs"]


def addressed(bad: BadStep, session_id: str) -> str:
    return bad.text.replace('{"x"', f'{{"session_id": "{session_id}", "x"', 1)


def require_fields(problem: dict[str, object], code: str) -> None:
    """Assert that an error carries what a client can act on."""
    if code == "invalid_timestep":
        assert problem["expected_features"] == list(FEATURES)
    if code in ("step_gap", "step_conflict"):
        assert problem["current_step"] == 2


@each_bad_step
def test_a_bad_step_is_refused_and_loses_nothing(client: httpx.Client, at_step_2: str, bad: BadStep) -> None:
    response = client.post(f"/v1/sessions/{at_step_2}/steps", content=bad.message)
    require_problem(response, bad.status, bad.code, *bad.says)
    require_fields(response.json(), bad.code)


@each_addressable
def test_a_bad_step_among_many_is_refused_alone(
    client: httpx.Client, at_step_2: str, open_session: OpenSession, bad: BadStep
) -> None:
    neighbour = open_session()
    good = f'{{"session_id": "{neighbour}", "x": {readings(1)[0]}}}'
    if well_formed := not bad.says[0].startswith("the message is not JSON") and "[" * 9 not in bad.text:
        content = f'{{"steps": [{good}, {addressed(bad, at_step_2)}, {good}]}}'
        results = client.post("/v1/steps", content=content).json()["results"]
        assert [results[0]["step"], results[2]["step"]] == [1, 2]
        assert results[1]["session_id"] == at_step_2
        require_problem_body(results[1]["error"], bad.status, bad.code, *bad.says)
        require_fields(results[1]["error"], bad.code)
    else:
        response = client.post("/v1/steps", content=f'{{"steps": [{good}, {addressed(bad, at_step_2)}]}}')
        require_problem(response, 422, "invalid_request", "the message is n")
    assert step_count(client, neighbour) == 2 * well_formed


@pytest.mark.parametrize("form", [str, str.encode], ids=["text frames", "binary frames"])
def test_a_socket_survives_every_bad_step(
    client: httpx.Client, service: ConveyorServer, at_step_2: str, form: Callable[[str], str | bytes]
) -> None:
    with stream(service, at_step_2) as socket:
        assert socket.receive()["step"] == 2
        for bad in BAD_STEPS:
            answer = socket.ask(form(bad.text) if isinstance(bad.message, str) else bad.message)
            assert answer.keys() == {"error"}, bad.what
            require_problem_body(answer["error"], bad.status, bad.code, *bad.says)
            require_fields(answer["error"], bad.code)


@pytest.mark.parametrize("array", [False, True], ids=["by ones", "in arrays"])
def test_a_socket_of_many_sessions_survives_every_bad_step(
    client: httpx.Client, service: ConveyorServer, at_step_2: str, array: bool
) -> None:
    with stream_at(service, "/v1/stream") as socket:
        for bad in ADDRESSABLE:
            message = addressed(bad, at_step_2)
            answer = socket.ask(f"[{message}]" if array else message)
            answer = answer[0] if isinstance(answer, list) else answer
            if "not JSON" in bad.says[0] or "[" * 9 in bad.text:
                require_problem_body(answer["error"], bad.status, bad.code)
            else:
                require_problem_body(answer["error"], bad.status, bad.code, *bad.says)
                assert answer["session_id"] == at_step_2, bad.what


MANY = [
    ("nothing", b"", ("the message is not JSON",)),
    ("bytes that are not UTF-8", b"\xff", ("the message is not JSON",)),
    ("no steps", b"{}", ("missing required field `steps`",)),
    ("steps that are no list", b'{"steps": 5}', ("Expected `array`", "$.steps")),
    ("an unknown field", b'{"steps": [], "more": 1}', ("unknown field `more`",)),
    ("more than a message may hold", b'{"steps": [' + b"1, " * 1024 + b"1]}", ("1025 steps", "at most 1024")),
    ("deep nesting", b'{"steps": ' + b"[" * 100_000, ("nested",)),
]

ENTRIES = [
    ("a number", b"5", ("Expected `object`, got `int`",)),
    ("no session", b'{"x": [1]}', ("missing required field `session_id`",)),
    ("a session id that is a number", b'{"session_id": 5, "x": [1]}', ("Expected `str`", "$.session_id")),
    ("a session id that is not UTF-8", b'{"session_id": "\xff", "x": [1]}', ("utf-8",)),
    ("a session id that cannot be", b'{"session_id": "a b", "x": [1]}', ("'a b'",)),
]


@pytest.mark.parametrize(("content", "says"), [case[1:] for case in MANY], ids=[case[0] for case in MANY])
def test_a_message_of_many_steps_that_cannot_be_read_is_refused_whole(
    client: httpx.Client, content: bytes, says: tuple[str, ...]
) -> None:
    require_problem(client.post("/v1/steps", content=content), 422, "invalid_request", *says)


@pytest.mark.parametrize(("entry", "says"), [case[1:] for case in ENTRIES], ids=[case[0] for case in ENTRIES])
def test_an_entry_that_cannot_be_read_fails_alone(
    client: httpx.Client, service: ConveyorServer, open_session: OpenSession, entry: bytes, says: tuple[str, ...]
) -> None:
    session_id = open_session()
    good = f'{{"session_id": "{session_id}", "x": {readings(1)[0]}}}'.encode()
    over_http = client.post("/v1/steps", content=b'{"steps": [%b, %b]}' % (entry, good))
    assert over_http.status_code == 200, over_http.text
    with stream_at(service, "/v1/stream") as socket:
        over_socket = socket.ask(b"[%b, %b]" % (entry, good))
    for expected_step, (bad, fine) in enumerate([over_http.json()["results"], over_socket], start=1):
        assert fine["step"] == expected_step
        assert all(fragment in bad["error"]["detail"] for fragment in says), bad


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[{", b"[\xff]"], ids=["deep nesting", "half", "not UTF-8"])
def test_an_array_that_cannot_be_read_is_answered_in_its_place(
    service: ConveyorServer, open_session: OpenSession, content: bytes
) -> None:
    good = {"session_id": open_session(), "x": readings(1)[0]}
    with stream_at(service, "/v1/stream") as socket:
        socket.send(good, content, good)
        first, bad, last = (socket.receive() for _ in range(3))
    assert [first["step"], last["step"]] == [1, 2]
    require_problem_body(bad["error"], 422, "invalid_request", "the message")
