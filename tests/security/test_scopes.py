"""What somebody may not do is refused on every route and both sockets, before anything that they send is read."""

import json
import re
import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.api.gate import OPEN
from service.api.hot import GuardedRoute
from service.api.socket import SocketRoute
from service.app import create_app
from service.core.access import Scope
from service.settings import Settings
from tests.api.wire import readings, require_problem, require_problem_body, stream, stream_at
from tests.security.credentials import bearer
from tests.servers import ConveyorServer

ROW = readings(1)[0]
NEEDED: dict[str, Scope | None] = {
    "GET /v1/models": None,
    "GET /v1/models/{name}": None,
    "GET /v1/models/{name}/versions/{version}": None,
    "POST /v1/sessions": Scope.SESSIONS,
    "GET /v1/sessions": Scope.SESSIONS,
    "PUT /v1/sessions/{session_id}": Scope.SESSIONS,
    "GET /v1/sessions/{session_id}": Scope.SESSIONS,
    "DELETE /v1/sessions/{session_id}": Scope.SESSIONS,
    "POST /v1/sessions/{session_id}/reset": Scope.SESSIONS,
    "POST /v1/sessions/{session_id}/fork": Scope.SESSIONS,
    "GET /v1/sessions/{session_id}/state": Scope.SESSIONS,
    "PUT /v1/sessions/{session_id}/state": Scope.SESSIONS,
    "POST /v1/sessions/{session_id}/steps": Scope.STEP,
    "POST /v1/steps": Scope.STEP,
    "GET /metrics": Scope.METRICS,
}
SOCKETS = {"/v1/sessions/{session_id}/stream": Scope.STEP, "/v1/stream": Scope.STEP}


def guarded_app() -> FastAPI:
    """The application of a service that asks; it is not started, so the file is not read."""
    return create_app(Settings(api_keys=Path("keys.json")))


def without_scope(app: FastAPI) -> list[str]:
    """The paths that are served to everybody who has any key, as nobody has said which scope they need."""
    closed = [route for route in app.routes if getattr(route, "path", None) not in OPEN]
    return [getattr(route, "path", "") for route in closed if not isinstance(route, GuardedRoute | SocketRoute)]


def test_every_route_says_which_scope_it_needs() -> None:
    app = guarded_app()
    assert without_scope(app) == []
    http = {f"{m} {r.path}": r.needed for r in app.routes if isinstance(r, GuardedRoute) for m in r.methods or ()}
    sockets = {route.path: route.needed for route in app.routes if isinstance(route, SocketRoute)}
    assert http.items() >= NEEDED.items()
    assert sockets.items() >= SOCKETS.items()


@pytest.mark.parametrize("add", [FastAPI.add_api_route, FastAPI.add_api_websocket_route])
def test_a_route_that_is_added_without_a_scope_is_noticed(add: Callable[..., None]) -> None:
    async def endpoint() -> None:
        """Do nothing."""

    app = guarded_app()
    add(app, "/v1/new", endpoint)
    assert without_scope(app) == ["/v1/new"]


def test_what_is_open_is_little_and_holds_nothing_of_this_service() -> None:
    assert {"/healthz", "/readyz", "/docs", "/docs/oauth2-redirect", "/openapi.json"} == OPEN


@pytest.mark.parametrize("route", [route for route, scope in NEEDED.items() if scope is not None])
def test_a_route_serves_who_has_its_scope_and_nobody_else(
    guarded: ConveyorServer, keys: dict[str, str], route: str
) -> None:
    method, path = route.split()
    path = path.format(session_id="no-such-session")
    needed = NEEDED[route]
    assert needed is not None
    with httpx.Client(base_url=guarded.url, timeout=30) as client:
        for scope in Scope:
            # A body that would be a 413 if anybody read it, and nothing that the route would take.
            response = client.request(method, path, content=b"x" * 3_000_000, headers=bearer(keys[scope.value]))
            if scope is needed:
                assert response.status_code not in (401, 403)
            else:
                require_problem(response, 403, "forbidden", f"'{needed.value}'")
                assert response.json()["required_scope"] == needed.value
                assert f'scope="{needed.value}"' in response.headers["www-authenticate"]
        assert client.request(method, path, headers=bearer(keys["none"])).status_code == 403
        require_problem(client.request(method, path), 401, "unauthenticated", "Bearer")


@pytest.mark.parametrize("headers", ["", "Authorization: Bearer {models}\r\n"])
def test_a_refusal_waits_for_nothing_of_the_body(guarded: ConveyorServer, keys: dict[str, str], headers: str) -> None:
    head = "POST /v1/sessions/s/steps HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n" + headers.format(**keys)
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=20) as connection:
        connection.sendall(f"{head}\r\n".encode())  # and not a byte of the two million
        assert connection.recv(1000).startswith(b"HTTP/1.1 403" if headers else b"HTTP/1.1 401")


@pytest.mark.parametrize("route", [route for route, scope in NEEDED.items() if scope is None])
def test_what_is_served_needs_a_key_and_no_scope(guarded: ConveyorServer, keys: dict[str, str], route: str) -> None:
    url = guarded.url + route.split()[1].format(name="hotspot", version="1")
    assert httpx.get(url, headers=bearer(keys["none"])).status_code == 200
    response = httpx.get(url)
    require_problem(response, 401, "unauthenticated", "Authorization")
    assert response.headers["www-authenticate"] == 'Bearer realm="conveyor"'


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/sessions/", "/v1/nope", "/v2/health", "/docs/", "/metrics/", "//healthz"]
)
def test_a_stranger_is_not_told_which_paths_there_are(guarded: ConveyorServer, keys: dict[str, str], path: str) -> None:
    require_problem(httpx.get(guarded.url + path), 401, "unauthenticated")
    assert httpx.get(guarded.url + path, headers=bearer(keys["none"])).status_code == 404


@pytest.mark.parametrize("path", SOCKETS)
def test_a_socket_tells_why_it_is_closed_to_who_may_not(
    guarded: ConveyorServer, keys: dict[str, str], path: str
) -> None:
    path = path.format(session_id="some-session")
    cases = [({}, 401, "unauthenticated")]
    cases += [(bearer(keys[name]), 403, "forbidden") for name in ("sessions", "models", "metrics", "none")]
    for headers, status, code in cases:
        with stream_at(guarded, path, additional_headers=headers) as opened:
            require_problem_body(opened.receive()["error"], status, code)
            closed = opened.closed()
            assert (closed.code, closed.reason) == (1008, code)


def test_a_socket_opens_sessions_for_those_alone_who_may(guarded: ConveyorServer, keys: dict[str, str]) -> None:
    name = "opened-by-a-socket"
    with stream(guarded, name, "?model=hotspot", additional_headers=bearer(keys["step"])) as opened:
        require_problem_body(opened.receive()["error"], 403, "forbidden", "'sessions'")
        assert opened.closed().code == 1008
    sessions = bearer(keys["sessions"])
    assert httpx.get(f"{guarded.url}/v1/sessions/{name}", headers=sessions).status_code == 404
    with stream(guarded, name, "?model=hotspot", additional_headers=bearer(keys["a"])) as opened:
        assert opened.receive()["step"] == 0
        assert opened.ask({"x": ROW})["step"] == 1
    with stream(guarded, name, additional_headers=bearer(keys["step"])) as opened:
        assert opened.receive()["step"] == 1
        assert opened.ask({"x": ROW})["step"] == 2


def test_orchestrators_are_answered_and_told_nothing(guarded: ConveyorServer, keys: dict[str, str]) -> None:
    assert httpx.get(guarded.url + "/healthz").json() == {"status": "ok"}
    assert httpx.head(guarded.url + "/readyz").status_code == 200
    for headers in ({}, bearer("nonsense"), bearer(keys["expired"]), bearer(keys["a"])):
        assert httpx.get(guarded.url + "/readyz", headers=headers).json() == {"ready": True}
    told = httpx.get(guarded.url + "/readyz", headers=bearer(keys["metrics"])).json()
    assert told["store"].startswith("Redis")
    assert told["models"]


def test_the_document_tells_how_to_say_who_one_is(guarded: ConveyorServer, service: ConveyorServer) -> None:
    document = httpx.get(guarded.url + "/openapi.json").json()
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for route, needed in NEEDED.items():
        method, path = route.split()
        operation = document["paths"][path][method.lower()]
        assert operation["security"] == [{"bearer": [] if needed is None else [needed.value]}]
        assert {"401", "403"} <= operation["responses"].keys()
    for path in ("/healthz", "/readyz"):
        assert "security" not in document["paths"][path]["get"]
    # Where nobody is asked, nobody is told to say so.
    assert not re.search("security|bearer", json.dumps(httpx.get(service.url + "/openapi.json").json()).lower())
