"""Steps on the wire: decoded by compiled decoders, encoded straight from arrays.

The routes and sockets that carry steps use these; `service.api.schemas` describes the same messages to OpenAPI, and
``tests/api/test_openapi.py`` holds the two against each other.
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Annotated, Any, Literal, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from service.api.dependencies import Limits
from service.api.problems import problem, refusal
from service.core.errors import ConveyorError, InvalidRequest, Overloaded
from service.core.session import Result, Timestep
from service.frame import Answers, Numbers

_FLOAT_BYTES = 4

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


class PackedStep(StepMessage, forbid_unknown_fields=True):
    """A `StepMessage` in MessagePack, where `x` may be a tensor too."""

    x: list[float | list[float]] | dict[str, float | list[int] | bytes]  # type: ignore[assignment]

    def timestep(self, limits: Limits) -> Timestep:
        """See `StepMessage.timestep`. Raises `InvalidRequest` for a tensor that is none, too."""
        if type(self.x) is dict:
            self.x = _unpacked(self.x)
        return StepMessage.timestep(self, limits)


class PackedAddressedStep(PackedStep, forbid_unknown_fields=True, kw_only=True):
    """The same for a session that the message names."""

    session_id: str


class PackedManySteps(msgspec.Struct, forbid_unknown_fields=True):
    """`ManySteps` in MessagePack."""

    steps: list[PackedAddressedStep]


Addressed = AddressedStep | PackedAddressedStep

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Decoder(Protocol[T_co]):
    """One of `msgspec`'s."""

    @property
    def type(self) -> Any: ...

    def decode(self, content: Any, /) -> T_co: ...


Rows = Callable[[NDArray[np.float32]], Sequence[Any]]
"""Makes of the rows of an array what stands for each of them in an answer."""

Answer = Mapping[str, Any] | list[Any]
"""What is sent to a client: JSON's nouns, and arrays of numbers."""


def decode(decoder: Decoder[T], content: bytes | str) -> T:
    """Decode a message. Raises `InvalidRequest` that says what is wrong and where."""
    language = "JSON" if isinstance(decoder, msgspec.json.Decoder) else "MessagePack"
    try:
        return decoder.decode(content)
    except msgspec.ValidationError as error:
        known = getattr(decoder.type, "__struct_fields__", ())
        raise InvalidRequest(f"{error}; the fields are {', '.join(known)}" if known else str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the message is not {language}: {error}") from None
    except TypeError:
        raise InvalidRequest(f"the message is text; {language} is bytes") from None
    except RecursionError:
        raise InvalidRequest("the message is nested too deeply") from None


def rest_answer(session_id: str, result: Result) -> dict[str, Any]:
    """Return the answer of the REST routes and of the sockets that carry many sessions."""
    return {
        "session_id": session_id,
        "step": result.step,
        "replayed": result.replayed,
        "outputs": result.outputs,
    }


def rest_answers(session_ids: Sequence[str], answers: Answers, rows: Rows) -> list[dict[str, Any]]:
    """Return what `rest_answer` does, for many; `rows` makes of an array what stands in a message for each row."""
    if len(answers.outputs) == 1:  # nearly always, and cheaper
        ((name, array),) = answers.outputs.items()
        outputs = [{name: row} for row in rows(array)]
    else:
        columns = zip(*map(rows, answers.outputs.values()), strict=True)
        outputs = [dict(zip(answers.outputs, row, strict=True)) for row in columns]
    return [
        {"session_id": session_id, "step": step, "replayed": False, "outputs": output}
        for session_id, step, output in zip(session_ids, answers.steps, outputs, strict=True)
    ]


def rest_error(session_id: str | None, error: ConveyorError) -> dict[str, Any]:
    told = refusal(error) if type(error) is Overloaded else problem(error)
    return {"session_id": session_id, "error": told}


def stream_answer(result: Result) -> dict[str, Any]:
    """Return the answer of a socket that carries one session."""
    if result.replayed:
        return {"step": result.step, "replayed": True, "outputs": result.outputs}
    return {"step": result.step, "outputs": result.outputs}


def single_timesteps(xs: Sequence[Any], max_width: int) -> Numbers | None:
    """Return the `x` of steps as (steps, features) where each is one timestep, all of one width; or None."""
    if type(xs[0]) is dict:
        return _one_shape(xs, max_width)
    width = len(xs[0])
    if not 0 < width <= max_width or not all(type(x) is list and len(x) == width for x in xs):
        return None
    try:
        numbers = np.array(xs, np.float64)
    except ValueError:  # lists among the numbers
        return None
    return numbers if numbers.ndim == 2 else None


def _one_shape(xs: Sequence[Any], max_width: int) -> Numbers | None:
    """Return the numbers of tensors of one timestep, all of the first one's shape, or None where they are not."""
    shape = xs[0].get("shape")
    if type(shape) is not list or not shape or not 0 < shape[-1] <= max_width or shape[:-1] not in ([], [1]):
        return None
    try:
        data = [x["data"] for x in xs if x["shape"] == shape and len(x) == len(("shape", "data"))]
    except (TypeError, LookupError):
        return None
    size = _FLOAT_BYTES * shape[-1]
    if len(data) < len(xs) or set(map(type, data)) != {bytes} or set(map(len, data)) != {size}:
        return None
    return np.frombuffer(b"".join(data), "<f4").astype(np.float32, copy=False).reshape(len(xs), -1)


def _unpacked(x: dict[str, Any]) -> Any:
    """Return the numbers of a tensor, or `x` itself where it holds features by name."""
    shape, data = x.get("shape"), x.get("data")
    if type(data) is not bytes and type(shape) is not list:
        if wrong := [name for name, value in x.items() if type(value) is not float]:
            raise InvalidRequest(f"{wrong[0]} is no number; x is a tensor, numbers, or numbers by name")
        return x
    if (
        type(data) is not bytes
        or type(shape) is not list
        or len(x) != len(("shape", "data"))
        or len(shape) not in (1, 2)
        or min(shape) < 1
        or len(data) != _FLOAT_BYTES * prod(shape)
    ):
        raise InvalidRequest(
            "x is no tensor: it has a shape, [features] or [timesteps, features], and data, 4 bytes for each number; "
            f"this has {', '.join(sorted(x))}, shape {shape} and {len(data) if type(data) is bytes else 'no'} bytes"
        )
    return np.frombuffer(data, "<f4").reshape(shape).tolist()
