"""Requests made from the OpenAPI document, valid ones and such as violate it: schemathesis against a running service.

Every answer has a status, a media type and a form that the document declares, and none is a server error. One check is
left to `tests/api`: that whatever the schema allows is taken. It cannot say how wide a model's timestep is.
"""

import zlib
from typing import Any

import httpx
import msgspec
import pytest
import schemathesis
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from service.app import create_app
from service.settings import Settings
from tests.api.wire import readings
from tests.budget import examples
from tests.fuzz.conftest import SESSIONS
from tests.servers import ConveyorServer

schema = schemathesis.openapi.from_dict(create_app(Settings()).openapi())


@schemathesis.serializer("application/msgpack")
def _packed(_context: schemathesis.SerializationContext, value: Any) -> bytes | None:
    try:
        return msgspec.msgpack.encode(value)
    except (TypeError, OverflowError, ValueError):  # MessagePack ends at 64 bits
        return None


@schema.hook
def map_case(_context: schemathesis.HookContext, case: schemathesis.Case) -> schemathesis.Case:
    """Let most requests meet a session, a model, a version that is there: the framework makes names up.

    What violates the document on purpose stays as it is: put right, it would be taken, as it should.
    """
    if not _is_violated(case, ParameterLocation.PATH):
        for parameter, names in (("session_id", SESSIONS), ("name", ["hotspot"]), ("version", ["1"])):
            if parameter in (case.path_parameters or {}):
                case.path_parameters[parameter] = _often(names, case.path_parameters[parameter])
    if isinstance(case.body, dict) and not _is_violated(case, ParameterLocation.BODY):
        _put_right(case.body)
    return case


def _is_violated(case: schemathesis.Case, location: ParameterLocation) -> bool:
    return case.meta is not None and case.meta.is_negative_at(location)


def _put_right(body: dict[str, Any]) -> None:
    """Let a body name what is there, most often, and have timesteps as wide as the model's."""
    for message in [body, *(body.get("steps") or [])]:
        for field, names in (
            ("model", ["hotspot"]),
            ("version", ["1"]),
            ("x", readings(3)),
            ("history", [readings(2)]),
        ):
            if field in message:
                message[field] = _often(names, message[field])
        if body is not message and "session_id" in message:
            message["session_id"] = _often(SESSIONS, message["session_id"])


def _often(choices: Any, made_up: Any) -> Any:
    chance = zlib.crc32(repr(made_up).encode(errors="replace"))
    return choices[chance // 4 % len(choices)] if chance % 4 else made_up


@schema.parametrize()
@examples(12)
def test_every_answer_is_one_that_the_document_declares(case: schemathesis.Case, fuzzed: ConveyorServer) -> None:
    excluded = [positive_data_acceptance]
    if case.path == "/v1/steps":
        excluded.append(negative_data_rejection)  # its steps are refused one by one, in an answer of 200
    case.call_and_validate(base_url=fuzzed.url, excluded_checks=excluded)


def test_the_running_service_has_the_document_that_was_tried(fuzzed: ConveyorServer) -> None:
    assert httpx.get(f"{fuzzed.url}/openapi.json").json() == create_app(Settings()).openapi()


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/sessions/a/", "/v1/sessions//steps", "/v2", "/%00", "/%ff/%2e%2e"])
def test_beside_the_document_there_is_nothing(fuzzed: ConveyorServer, path: str) -> None:
    for method in ("GET", "POST", "PATCH", "TRACE", "BREW"):
        response = httpx.request(method, fuzzed.url + path)
        assert 300 <= response.status_code < 500, (method, path, response.text)
