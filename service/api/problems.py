"""Errors on the wire: RFC 9457 problem details, and the one table from an error to its HTTP status and close code."""

import math
from functools import lru_cache
from http import HTTPStatus
from typing import Any, NamedTuple

import orjson
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from service.core import errors
from service.core.errors import ConveyorError, InternalError, InvalidRequest

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"


class Wire(NamedTuple):
    """How an error leaves the service.

    `close` is the WebSocket close code; None leaves the socket open after the error has been sent. A `fragile` error
    closes only where more steps are in flight behind the failed one: they were sent on the belief that it would work.
    """

    status: HTTPStatus
    close: int | None = None
    fragile: bool = False


WIRE: dict[type[ConveyorError], Wire] = {
    errors.InvalidInput: Wire(HTTPStatus.UNPROCESSABLE_ENTITY),
    errors.NotFound: Wire(HTTPStatus.NOT_FOUND, 4404),
    errors.Conflict: Wire(HTTPStatus.CONFLICT),
    errors.StepConflict: Wire(HTTPStatus.CONFLICT, 4409, fragile=True),
    errors.StepGap: Wire(HTTPStatus.CONFLICT, 4409, fragile=True),
    errors.QuotaExceeded: Wire(HTTPStatus.CONFLICT, 1008),
    errors.Unavailable: Wire(HTTPStatus.SERVICE_UNAVAILABLE),
    errors.Overloaded: Wire(HTTPStatus.TOO_MANY_REQUESTS),
    errors.RateLimited: Wire(HTTPStatus.TOO_MANY_REQUESTS),
    errors.ShuttingDown: Wire(HTTPStatus.SERVICE_UNAVAILABLE, 1012),
    errors.Unauthenticated: Wire(HTTPStatus.UNAUTHORIZED, 1008),
    errors.Forbidden: Wire(HTTPStatus.FORBIDDEN, 1008),
    errors.InternalError: Wire(HTTPStatus.INTERNAL_SERVER_ERROR, 1011),
}
"""An error that is not listed is treated as its nearest ancestor is."""

_CHALLENGE = 'Bearer realm="conveyor"'

_CLIENT_CLOSED_REQUEST = 499

_HTTP_CODES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}


def wire_of(error: ConveyorError) -> Wire:
    return next(WIRE[ancestor] for ancestor in type(error).__mro__ if ancestor in WIRE)


def problem(error: ConveyorError) -> dict[str, Any]:
    """Return the body that tells of an error, the same on HTTP and WebSockets."""
    return _problem(wire_of(error).status, error.code, error.detail, error.fields)


@lru_cache(maxsize=2)
def refusal(error: errors.Overloaded) -> dict[str, Any]:
    """Return `problem` of an error that many get."""
    return problem(error)


def problem_response(error: ConveyorError) -> Response:
    headers = {}
    if isinstance(error, errors.Unavailable):
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    if isinstance(error, errors.Unauthenticated):
        headers["www-authenticate"] = _CHALLENGE
    elif isinstance(error, errors.Forbidden) and (needed := error.fields.get("required_scope")):
        headers["www-authenticate"] = f'{_CHALLENGE}, error="insufficient_scope", scope="{needed}"'
    return _response(problem(error), headers)


def http_problem(status: HTTPStatus, code: str, detail: str, headers: dict[str, str] | None = None) -> Response:
    """Return the answer to what is no request for the application at all."""
    return _response(_problem(status, code, detail, {}), headers or {})


def install(app: FastAPI) -> None:
    """Make every error of an application a problem: ours, the framework's, and those that nobody expected."""
    for known in (ConveyorError, HTTPException, ClientDisconnect, RequestValidationError, Exception):
        app.add_exception_handler(known, respond)


async def respond(request: Request, error: Exception) -> Response:
    """Return the answer to a request that ended in an error."""
    match error:
        case ConveyorError():
            return problem_response(error)
        case HTTPException():
            return _http(request, error)
        case RequestValidationError():
            return _invalid(error)
        case ClientDisconnect():
            # It left in the middle of its request: nobody reads this answer, and nobody needs a traceback of it.
            return Response(status_code=_CLIENT_CLOSED_REQUEST)
    return failed(request.method, request.url.path, error)


def failed(method: str, path: str, error: BaseException) -> Response:
    """Log an error that nobody expected; return the answer to the request that ended in it."""
    log.error("a request failed", method=method, path=path, exc_info=error)
    return problem_response(InternalError("the service failed at this request; its log says why"))


def _http(request: Request, error: HTTPException) -> Response:
    status = HTTPStatus(error.status_code)
    if status == HTTPStatus.BAD_REQUEST:  # the framework's word for a body that it cannot read
        return problem_response(InvalidRequest("the message is not JSON in UTF-8, or is nested too deeply"))
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    detail = str(error.detail)
    if status == HTTPStatus.NOT_FOUND:
        detail = f"there is nothing at {request.url.path}; see /docs"
    elif status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["allow"] = ", ".join(_methods(request))
        detail = f"{request.method} is not possible at {request.url.path}; {headers['allow']} is"
    return _response(_problem(status, _HTTP_CODES.get(status, f"http_{status.value}"), detail, {}), headers)


def _methods(request: Request) -> list[str]:
    """Return what is possible at a path; the router tells of the first route alone."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    path = request.url.path
    return sorted({method for route in routes if route.path_regex.match(path) for method in route.methods or ()})


def _invalid(error: RequestValidationError) -> Response:
    found = [{"where": ".".join(map(str, item["loc"])), "problem": _told(item)} for item in error.errors()]
    summary = "; ".join(f"{item['where']}: {item['problem']}" for item in found)
    return problem_response(InvalidRequest(summary, errors=found))


def _told(item: Any) -> str:
    """Return what is wrong, in words that help where the framework's own do not."""
    if item["type"] == "json_invalid":
        return f"the message is not JSON: {item['ctx']['error']}"
    if item["loc"] == ("body",) and isinstance(item["input"], bytes):
        return "JSON is needed; send it with the header content-type: application/json"
    return str(item["msg"])


def _problem(status: HTTPStatus, code: str, detail: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": f"urn:conveyor:error:{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status.value,
        "detail": detail,
        "code": code,
        **fields,
    }


def _response(body: dict[str, Any], headers: dict[str, str]) -> Response:
    return Response(orjson.dumps(body), body["status"], headers, MEDIA_TYPE)
