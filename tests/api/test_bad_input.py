"""Nothing that can be sent makes the service fail, or changes a session; every answer says what would be right."""

from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from service.settings import Settings
from tests.api.bad_requests import BAD_REQUESTS, BadRequest
from tests.api.wire import readings, require_problem, require_problem_body, step_count, stream, stream_at
from tests.conftest import OpenSession
from tests.servers import ConveyorServer

LIMIT = Settings.model_fields["max_body_bytes"].default
WITH_BODY = (
    "POST /v1/sessions",
    "PUT /v1/sessions/{session_id}",
    "PUT /v1/sessions/{session_id}/state",
    "POST /v1/sessions/{session_id}/fork",
    "POST /v1/sessions/{session_id}/steps",
    "POST /v1/steps",
)


@pytest.fixture
def at_step_2(client: httpx.Client, open_session: OpenSession) -> Iterator[str]:
    """A session at step 2, whose record the test must leave as it is."""
    session_id = open_session(history=readings(2))
    record = client.get(f"/v1/sessions/{session_id}/state").content
    yield session_id
    assert client.get(f"/v1/sessions/{session_id}/state").content == record


@pytest.mark.parametrize("bad", BAD_REQUESTS, ids=lambda bad: f"{bad.route}: {bad.what}")
def test_a_bad_request_is_refused_and_loses_nothing(
    client: httpx.Client, at_step_2: str, session_id: str, bad: BadRequest
) -> None:
    body = bad.body.replace("{session_id}", at_step_2) if isinstance(bad.body, str) else bad.body
    headers = {"content-type": bad.content_type} if body is not None and bad.content_type else {}
    url = bad.url.replace("{session_id}", at_step_2).replace("{missing}", session_id)
    response = client.request(bad.method, url, content=body, headers=headers)
    require_problem(response, bad.status, bad.code, *bad.says)
    if bad.code == "session_exists":
        assert response.json()["current_step"] == 2


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
@pytest.mark.parametrize("route", WITH_BODY)
def test_a_body_beyond_the_limit_is_refused(client: httpx.Client, at_step_2: str, route: str, chunked: bool) -> None:
    method, path = route.format(session_id=at_step_2).split()
    content = b'"' + b"x" * LIMIT
    pieces = (content[start : start + 2**20] for start in range(0, len(content), 2**20))
    response = client.request(
        method, path, content=pieces if chunked else content, headers={"content-type": "application/json"}
    )
    require_problem(response, 413, "body_too_large", f"larger than {LIMIT} bytes")


RECORDS = {
    "nothing": (lambda record: b"", 422, "invalid_record", "at least 58 bytes, this has 0"),
    "a record cut short": (lambda record: record[:-1], 422, "invalid_record", "lengths add up"),
    "a record and more": (lambda record: record + b"\0", 422, "invalid_record", "lengths add up"),
    "JSON": (lambda record: b'{"model": "hotspot"}'.ljust(80), 422, "invalid_record", "begins with b'CVY'"),
    "another format": (lambda record: record[:3] + b"\x02" + record[4:], 422, "invalid_record", "this release reads 1"),
    "another model's digest": (lambda record: record[:40] + b"foreign!" + record[48:], 409, "model_mismatch", "digest"),
    "a name that is not UTF-8": (lambda record: record[:58] + b"\xff" + record[59:], 422, "invalid_record", "UTF-8"),
    "a NaN": (lambda record: record[:-4] + b"\0\0\xc0\x7f", 422, "invalid_record", "not finite"),
    "no time to live": (lambda record: record[:36] + bytes(4) + record[40:], 422, "invalid_request", "1 to 31536000"),
    "a step beyond JSON": (lambda record: record[:12] + b"\xff" * 8 + record[20:], 422, "invalid_record", "beyond"),
    "outputs before the first step": (
        lambda record: record[:12] + bytes(8) + record[20:],
        422,
        "invalid_record",
        "the record's outputs has 288 bytes",
    ),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_that_cannot_be_trusted_is_refused(client: httpx.Client, at_step_2: str, name: str) -> None:
    change, status, code, says = RECORDS[name]
    record = client.get(f"/v1/sessions/{at_step_2}/state").content
    require_problem(client.put(f"/v1/sessions/{at_step_2}/state", content=change(record)), status, code, says)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/steps", "POST"),
        ("PUT", "/v1/sessions/{}/steps", "POST"),
        ("POST", "/v1/models", "GET"),
        ("POST", "/healthz", "GET, HEAD"),
        ("DELETE", "/v1/sessions", "GET, POST"),
        ("PATCH", "/v1/sessions/{}", "DELETE, GET, PUT"),
        ("POST", "/v1/sessions/{}/state", "GET, PUT"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(
    client: httpx.Client, at_step_2: str, method: str, path: str, allowed: str
) -> None:
    response = client.request(method, path.format(at_step_2))
    require_problem(response, 405, "method_not_allowed", f"{method} is not possible at", allowed)
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/session", "/v1/sessions/a/b", "/v1/sessions/a%2Fb", "/v3/models"])
def test_an_unknown_path_is_sent_to_the_documentation(client: httpx.Client, path: str) -> None:
    require_problem(client.get(path), 404, "not_found", "there is nothing at", "see /docs")


@pytest.mark.parametrize(
    ("path", "close", "code", "says"),
    [
        ("/v1/sessions/{missing}/stream", 4404, "session_not_found", "there is no session"),
        ("/v1/sessions/{missing}/stream?model=nope", 4404, "model_not_found", "there is: hotspot"),
        ("/v1/sessions/{missing}/stream?model=hotspot&version=9", 4404, "model_not_found", "it has: 1"),
        ("/v1/sessions/{missing}/stream?model=hotspot&ttl_s=0", 1008, "invalid_request", "1 to 31536000"),
        ("/v1/sessions/{missing}/stream?model=hotspot&ttl_s=soon", 1008, "invalid_request", "ttl_s is 'soon'"),
        ("/v1/sessions/a%20b/stream?model=hotspot", 1008, "invalid_session_id", "1 to 128 of"),
        ("/v1/sessions/{session_id}/stream?model=nope", 4404, "model_not_found", "there is: hotspot"),
    ],
)
def test_a_socket_that_cannot_be_opened_says_why_and_closes(
    service: ConveyorServer, at_step_2: str, session_id: str, path: str, close: int, code: str, says: str
) -> None:
    with stream_at(service, path.format(missing=session_id, session_id=at_step_2)) as socket:
        error = socket.receive()["error"]
        require_problem_body(error, 404 if close == 4404 else 422, code, says)
        end = socket.closed()
    assert (end.code, end.reason) == (close, code)


def test_a_frame_beyond_the_limit_ends_the_socket_alone(
    client: httpx.Client, service: ConveyorServer, at_step_2: str
) -> None:
    with stream(service, at_step_2) as socket:
        socket.receive()
        with suppress(ConnectionClosed):  # the client ends with an empty one, and may have heard by then
            socket.socket.send(["x" * LIMIT, "x"])  # in two fragments, of which the second is too much
        assert socket.closed().code == 1009
    assert step_count(client, at_step_2) == 2
