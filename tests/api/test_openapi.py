"""The OpenAPI document says what the service does, and the service does what the document says."""

import json
import re
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from jsonschema import Draft202012Validator

from service.app import create_app
from service.settings import Settings
from tests.api.bad_requests import BAD_REQUESTS
from tests.api.bad_steps import BAD_STEPS
from tests.api.wire import FEATURES, readings
from tests.conftest import OpenSession

ROW = readings(1)[0]
NAMED = dict(zip(FEATURES, ROW, strict=True))
METHODS = {"get", "put", "post", "delete"}
STEPS, MANY = "/v1/sessions/{session_id}/steps", "/v1/steps"
SESSION = "/v1/sessions/{session_id}"


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> dict[str, Any]:
    return dict(client.get("/openapi.json").json())


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what the document says of each ``POST /path``."""
    return {
        f"{method.upper()} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    }


def validator(document: dict[str, Any], schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator(schema | {"components": document["components"]})


def body_schema(document: dict[str, Any], route: str) -> dict[str, Any]:
    return dict(operations(document)[route]["requestBody"]["content"]["application/json"]["schema"])


def test_the_document_names_every_route_and_no_other(document: dict[str, Any]) -> None:
    app = create_app(Settings())
    routes = {
        f"{method} {route.path}"
        for route in app.routes
        if isinstance(route, APIRoute)
        for method in route.methods - {"HEAD"}  # a GET without the body
    }
    assert operations(document).keys() == routes


def test_every_operation_says_what_it_is_for_and_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    assert all(operation["summary"] and operation["description"] for operation in operations(document).values())
    referred = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert referred <= document["components"]["schemas"].keys()
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_error_that_a_route_gives_is_declared_as_a_problem(document: dict[str, Any]) -> None:
    given = {(bad.route, bad.status) for bad in BAD_REQUESTS}
    given |= {(f"POST {STEPS}", bad.status) for bad in BAD_STEPS}
    given |= {(route, 413) for route, operation in operations(document).items() if "requestBody" in operation}
    declared = operations(document)
    missing = {(route, status) for route, status in given if str(status) not in declared[route]["responses"]}
    assert missing == set()
    for route, status in given:
        content = declared[route]["responses"][str(status)]["content"]
        assert content == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


STEP_MESSAGES: list[dict[str, Any]] = [
    {"x": ROW},
    {"x": NAMED},
    {"x": [ROW, ROW]},
    {"x": [1, 2, 3, 4, 5, 6, 7, 8]},
    {"x": ROW, "step": 1},
    {"x": ROW, "step": None},
    {"x": ROW, "outputs": "all"},
    {"x": ROW, "outputs": "last"},
    {"x": ROW, "step": 0},
    {"x": ROW, "step": -1},
    {"x": ROW, "step": 1.5},
    {"x": ROW, "step": "1"},
    {"x": ROW, "step": True},
    {"x": ROW, "step": 2**53},
    {"x": ROW, "outputs": None},
    {"x": ROW, "outputs": "first"},
    {"x": ROW, "more": 1},
    {"x": None},
    {"x": 1},
    {"x": "1"},
    {"x": [ROW, 1]},
    {"x": [[ROW]]},
    {"x": [*ROW[:-1], None]},
    {"x": [*ROW[:-1], True]},
    {"x": [*ROW[:-1], "1"]},
    {"x": NAMED | {"load": "1"}},
    {"x": [NAMED]},
    {},
]
SESSION_MESSAGES: list[dict[str, Any]] = [
    {"model": "hotspot"},
    {"model": "hotspot", "version": "1", "ttl_s": 60, "history": [ROW, ROW]},
    {"model": "hotspot", "version": None, "ttl_s": None, "history": None},
    {"model": "hotspot", "history": [[1, 2, 3, 4, 5, 6, 7, 8]]},
    {"model": "hotspot", "version": 1},
    {"model": "hotspot", "version": "01"},
    {"model": "hotspot", "ttl_s": 0},
    {"model": "hotspot", "ttl_s": "60"},
    {"model": "hotspot", "ttl_s": True},
    {"model": "hotspot", "ttl_s": 1.5},
    {"model": "hotspot", "history": ROW},
    {"model": "hotspot", "history": [NAMED]},
    {"model": "hotspot", "history": [[*ROW[:-1], "1"]]},
    {"model": "hotspot", "history": [[*ROW[:-1], True]]},
    {"model": "hotspot", "more": 1},
    {"model": 1},
    {"model": None},
    {},
]
AGREEMENTS = [
    *((f"POST {STEPS}", message) for message in STEP_MESSAGES),
    *(("POST /v1/sessions", message) for message in SESSION_MESSAGES),
    *(("PUT /v1/sessions/{session_id}", message) for message in SESSION_MESSAGES),
    *(("POST /v1/sessions/{session_id}/fork", message) for message in [{}, {"ttl_s": 5}, {"ttl_s": "5"}, {"ttl_s": 0}]),
]


@pytest.mark.parametrize(("route", "message"), AGREEMENTS, ids=[f"{r} {json.dumps(m)[:60]}" for r, m in AGREEMENTS])
def test_the_service_takes_what_the_schema_allows_and_nothing_else(
    client: httpx.Client, document: dict[str, Any], open_session: OpenSession, route: str, message: dict[str, Any]
) -> None:
    allowed = validator(document, body_schema(document, route)).is_valid(message)
    method, path = route.split()
    response = client.request(method, path.format(session_id=open_session(ttl_s=60)), json=message)
    assert (response.status_code in (200, 201)) is allowed, response.text


@pytest.mark.parametrize("message", STEP_MESSAGES, ids=lambda message: json.dumps(message)[:60])
def test_one_of_many_steps_is_what_the_schema_allows_and_nothing_else(
    client: httpx.Client, document: dict[str, Any], open_session: OpenSession, message: dict[str, Any]
) -> None:
    many = {"steps": [message | {"session_id": open_session(ttl_s=60)}]}
    allowed = validator(document, body_schema(document, f"POST {MANY}")).is_valid(many)
    (result,) = client.post(MANY, json=many).json()["results"]
    assert ("outputs" in result) is allowed, result


ANSWERS: list[tuple[str, Any, int]] = [
    ("GET /v1/models", None, 200),
    ("GET /v1/models/{name}", None, 200),
    ("GET /v1/models/{name}/versions/{version}", None, 200),
    ("POST /v1/sessions", {"model": "hotspot"}, 201),
    ("POST /v1/sessions", {"model": "hotspot", "history": [ROW]}, 201),
    ("POST /v1/sessions", {"model": "nope"}, 404),
    ("PUT /v1/sessions/{session_id}", {"model": "hotspot"}, 200),
    ("GET /v1/sessions/{session_id}", None, 200),
    ("GET /v1/sessions", None, 200),
    (f"POST {STEPS}", {"x": ROW}, 200),
    (f"POST {STEPS}", {"x": [ROW, ROW], "outputs": "all"}, 200),
    (f"POST {STEPS}", {"x": ROW, "step": 99}, 409),
    (f"POST {STEPS}", {"x": [1]}, 422),
    (f"POST {MANY}", {"steps": [{"session_id": "nope", "x": ROW}, {"session_id": "{session_id}", "x": ROW}]}, 200),
    ("POST /v1/sessions/{session_id}/fork", {}, 201),
    ("POST /v1/sessions/{session_id}/reset", None, 200),
    ("GET /healthz", None, 200),
    ("GET /readyz", None, 200),
]


@pytest.mark.parametrize(("route", "message", "status"), ANSWERS, ids=[f"{a[0]} {a[2]}" for a in ANSWERS])
def test_what_the_service_answers_is_what_the_schema_says(
    client: httpx.Client, document: dict[str, Any], open_session: OpenSession, route: str, message: Any, status: int
) -> None:
    method, path = route.split()
    session_id = open_session(history=[ROW])
    content = json.dumps(message).replace("{session_id}", session_id) if message is not None else None
    response = client.request(
        method,
        path.format(session_id=session_id, name="hotspot", version="1"),
        content=content,
        headers={"content-type": "application/json"},
    )
    assert response.status_code == status, response.text
    media_type = response.headers["content-type"]
    schema = operations(document)[route]["responses"][str(status)]["content"][media_type]["schema"]
    validator(document, schema).validate(response.json())


def test_every_body_has_an_example_and_every_example_works(
    client: httpx.Client, document: dict[str, Any], open_session: OpenSession
) -> None:
    for route, operation in operations(document).items():
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content is None:
            continue
        (name,) = re.findall(r"#/components/schemas/(\w+)", json.dumps(content))
        examples = document["components"]["schemas"][name].get("examples")
        assert examples, f"{name} has no example"
        for example in examples:
            for session_id in ("pump-7", "pump-8", "pump-7-copy"):
                client.delete(f"/v1/sessions/{session_id}")
                if route != "POST /v1/sessions" and not session_id.endswith("copy"):
                    open_session(session_id=session_id)
            method, path = route.split()
            response = client.request(method, path.format(session_id="pump-7"), json=example)
            assert response.status_code in (200, 201), response.text
            assert '"error"' not in response.text
