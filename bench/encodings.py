"""How messages are written: JSON as text frames, or MessagePack as binary ones, agreed on by subprotocol."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray
from picows import WSMsgType

from bench.scenarios import EncodingName


class Encoding(NamedTuple):
    """`timestep` makes of numbers what stands for them in a message, `outputs` makes an array of what an answer holds.

    `marker` stands in an answer once for each step that was taken.
    """

    media_type: str
    subprotocol: str | None
    frame: WSMsgType
    marker: bytes
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    timestep: Callable[[ArrayLike], Any]
    outputs: Callable[[Any], NDArray[np.float64]]


def _compact(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _tensor(numbers: ArrayLike) -> dict[str, Any]:
    array = np.array(numbers, "<f4")
    return {"shape": array.shape, "data": array.tobytes()}


def _array(tensor: Any) -> NDArray[np.float64]:
    return np.frombuffer(tensor["data"], "<f4").reshape(tensor["shape"]).astype(np.float64)


ENCODINGS: dict[EncodingName, Encoding] = {
    "json": Encoding(
        media_type="application/json",
        subprotocol=None,
        frame=WSMsgType.TEXT,
        marker=b'"outputs"',
        encode=_compact,
        decode=json.loads,
        timestep=lambda numbers: numbers,
        outputs=lambda numbers: np.array(numbers, np.float64),
    ),
    "msgpack": Encoding(
        media_type="application/msgpack",
        subprotocol="conveyor.v1.msgpack",
        frame=WSMsgType.BINARY,
        marker=msgspec.msgpack.encode("outputs"),
        encode=msgspec.msgpack.encode,
        decode=msgspec.msgpack.decode,
        timestep=_tensor,
        outputs=_array,
    ),
}
