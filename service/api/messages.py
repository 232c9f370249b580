"""Steps on the wire: decoded by compiled decoders, encoded straight from arrays.

The routes and sockets that carry steps use these; `service.api.schemas` describes the same messages to OpenAPI, and
``tests/api/test_openapi.py`` holds the two against each other.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import orjson

from service.api.dependencies import Limits
from service.api.problems import problem
from service.core.errors import ConveyorError, InvalidRequest
from service.core.session import Result, Timestep

StepNumber = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]


class StepMessage(msgspec.Struct, forbid_unknown_fields=True):
    """One timestep or a chunk for the session that the address names."""

    x: list[float | list[float]] | dict[str, float]
    step: StepNumber | None = None
    outputs: Literal["last", "all"] = "last"

    def timestep(self, limits: Limits) -> Timestep:
        """Return what is asked for. Raises `InvalidRequest` for more than any session could take."""
        x: Any = self.x
        if type(x) is list and 0 < len(x) <= limits.max_width and type(x[0]) is float:
            return Timestep(x, 1, self.step, self.outputs == "all")  # by far the most
        rows = x if x and type(x) is list and type(x[0]) is list else [x]
        if len(rows) > limits.max_chunk:
            raise InvalidRequest(f"x has {len(rows)} timesteps; a chunk has at most {limits.max_chunk}")
        width = max(len(row) for row in rows if type(row) is not float)
        if width > limits.max_width:
            raise InvalidRequest(f"x has {width} numbers to a timestep; no model that is served takes so many")
        return Timestep(x, len(rows), self.step, self.outputs == "all")


class AddressedStep(StepMessage, forbid_unknown_fields=True, kw_only=True):
    """The same for a session that the message names."""

    session_id: str


class SessionName(msgspec.Struct):
    """Whose a step is, where more cannot be read of it."""

    session_id: str


class ManySteps(msgspec.Struct, forbid_unknown_fields=True):
    """Steps of many sessions; each is decoded on its own where they cannot be decoded together."""

    steps: list[AddressedStep]


class RawSteps(msgspec.Struct, forbid_unknown_fields=True):
    steps: list[msgspec.Raw]


T = TypeVar("T")


def decode(decoder: msgspec.json.Decoder[T], content: bytes | str) -> T:
    """Decode a message. Raises `InvalidRequest` that says what is wrong and where."""
    try:
        return decoder.decode(content)
    except msgspec.ValidationError as error:
        known = getattr(decoder.type, "__struct_fields__", ())
        raise InvalidRequest(f"{error}; the fields are {', '.join(known)}" if known else str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the message is not JSON: {error}") from None
    except RecursionError:
        raise InvalidRequest("the message is nested too deeply") from None


Answer = Mapping[str, Any] | list[Any]
"""What is sent to a client: JSON's nouns, and arrays of numbers."""


def encode(message: Answer) -> bytes:
    return orjson.dumps(message, option=orjson.OPT_SERIALIZE_NUMPY)


def rest_answer(session_id: str, result: Result) -> dict[str, Any]:
    """Return the answer of the REST routes and of the sockets that carry many sessions."""
    return {
        "session_id": session_id,
        "step": result.step,
        "replayed": result.replayed,
        "outputs": result.outputs,
    }


def rest_error(session_id: str | None, error: ConveyorError) -> dict[str, Any]:
    return {"session_id": session_id, "error": problem(error)}


def stream_answer(result: Result) -> dict[str, Any]:
    """Return the answer of a socket that carries one session."""
    if result.replayed:
        return {"step": result.step, "replayed": True, "outputs": result.outputs}
    return {"step": result.step, "outputs": result.outputs}
