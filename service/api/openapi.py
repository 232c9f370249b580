"""The OpenAPI document: what the framework finds out by itself, and what it cannot know."""

import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.api import schemas
from service.api.gate import OPEN
from service.api.hot import GuardedRoute
from service.api.problems import MEDIA_TYPE

_REF = "#/components/schemas/{model}"
_PROBLEM = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}}

_STATUSES: dict[str, dict[str, str]] = {
    "every": {
        "429": "Too much is asked for, or waiting; see `retry_after_s`",
        "500": "A defect of the service or of a model",
        "503": "Not now; see `retry_after_s`",
    },
    "named": {"404": "No such session, model or version"},
    "body": {"413": "The body is too large", "422": "What was sent cannot be used"},
    "steps": {"409": "The session is at another step"},
}

DESCRIPTION = """
One timestep in, one forecast out; a session's memory is kept in Redis between them.

Open a session (`POST /v1/sessions`), then send its timesteps (`POST /v1/sessions/{session_id}/steps`) or stream them
over a WebSocket: `/v1/sessions/{session_id}/stream` for one session, `/v1/stream` for many. The messages of the
sockets are those of the step routes; OpenAPI cannot describe sockets, so `docs/wire.md` does, and MessagePack.

Every error is a problem (RFC 9457) with a stable `code`.
"""


def body(model: type[BaseModel]) -> dict[str, Any]:
    """Return what a route whose messages the framework neither reads nor writes tells OpenAPI about them."""
    schema = {"$ref": _REF.format(model=model.__name__)}
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema}, "application/msgpack": {}},
        },
        "responses": {"200": {"content": {"application/msgpack": {}}}},
    }


def install(app: FastAPI, *, authenticated: bool) -> None:
    """Make an application's OpenAPI document whole; `authenticated` where who asks has to say who they are."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
            if authenticated:
                _add_security(app.openapi_schema, app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, description=DESCRIPTION.strip(), routes=app.routes, tags=_TAGS
    )
    own = [schemas.Problem, schemas.StepRequest, schemas.ManyStepsRequest]
    described: list[Any] = [(model, "validation") for model in own]
    _, definitions = models_json_schema(described, ref_template=_REF)
    components = document.setdefault("components", {}).setdefault("schemas", {})
    components.update(definitions["$defs"])
    for name in ("HTTPValidationError", "ValidationError"):
        components.pop(name, None)
    for path, operations in document["paths"].items():
        if path.startswith("/v1"):
            for operation in operations.values():
                _add_path_parameters(path, operation)
                _add_problems(path, operation)
    return document


def _add_security(document: dict[str, Any], app: FastAPI) -> None:
    """Say of each operation which scope it needs. OpenAPI 3.1 calls that a role, as it is not OAuth's own."""
    document["components"]["securitySchemes"] = {"bearer": _BEARER}
    for route in app.routes:
        if isinstance(route, GuardedRoute) and route.path not in OPEN:
            for method in (route.methods or set()) - {"HEAD"}:
                operation = document["paths"][route.path][method.lower()]
                operation["security"] = [{"bearer": [] if route.needed is None else [route.needed.value]}]
                for status, meaning in _REFUSALS.items():
                    operation["responses"].setdefault(status, {"description": meaning, "content": _PROBLEM})


_BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key (`cvy_…`) or a JSON Web Token; the name behind it is the scope that is needed.",
}
_REFUSALS = {"401": "Who asks is not known", "403": "Who asks has not the scope that this needs"}

_TAGS = [
    {"name": "models", "description": "What is served, and what its numbers mean."},
    {"name": "sessions", "description": "A stream's memory, from its first timestep to its last."},
    {"name": "steps", "description": "Timesteps in, outputs out."},
    {"name": "access", "description": "For web pages, which cannot say with a WebSocket who they are."},
    {"name": "health", "description": "For orchestrators and dashboards."},
]


def _add_path_parameters(path: str, operation: dict[str, Any]) -> None:
    """Declare what the framework does not see: the endpoints of thin routes take the request as it is."""
    parameters = operation.get("parameters", [])
    for name in re.findall(r"{(\w+)}", path):
        if all(parameter["name"] != name for parameter in parameters):
            parameters.append({"name": name, "in": "path", "required": True, "schema": {"type": "string"}})
    if parameters:
        operation["parameters"] = parameters


def _add_problems(path: str, operation: dict[str, Any]) -> None:
    kinds = ["every"]
    if "{" in path or ("requestBody" in operation and not path.endswith("/steps")):
        kinds.append("named")
    if "requestBody" in operation or operation.get("parameters"):
        kinds.append("body")
    if path.endswith("}/steps"):
        kinds.append("steps")
    responses = operation["responses"]
    responses.pop("422", None)  # the framework's own, which is not what it answers here
    for kind in kinds:
        for status, meaning in _STATUSES[kind].items():
            responses.setdefault(status, {"description": meaning, "content": _PROBLEM})
    if path.endswith("/reset") or ("requestBody" in operation and not path.endswith("/steps")):
        responses.setdefault("409", {"description": "Something else is there already", "content": _PROBLEM})
