"""JSON and MessagePack: the same messages, read and written by compiled decoders and encoders.

In MessagePack the arrays of an answer are tensors, ``{"shape": [24, 3], "data": <bytes>}`` with the numbers as float32,
little-endian, row by row, and a step's `x` may be one.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from service.api.casts import Casts
from service.api.messages import (
    Addressed,
    AddressedStep,
    Answer,
    Decoder,
    ManySteps,
    PackedAddressedStep,
    PackedManySteps,
    PackedStep,
    RawSteps,
    SessionName,
    StepMessage,
    rest_answers,
)
from service.core.roster import Roster
from service.frame import Answers


class Encoding(NamedTuple):
    """How messages stand on the wire. `binary`: as bytes on a WebSocket. `is_array` tells an array from a message.

    `encode_answers` encodes those to the sessions of a roster, and `encode_items` any, without an array around them;
    `array_of` puts one around such pieces, of so many answers in all, and `fragment` makes what is encoded part of a
    message that is not.
    """

    media_type: str
    subprotocol: str
    binary: bool
    encode: Callable[[Answer], bytes]
    encode_answers: Callable[[Roster, Answers], bytes]
    encode_items: Callable[[list[dict[str, Any]]], bytes]
    array_of: Callable[[Sequence[bytes], int], bytes]
    fragment: Callable[[bytes], Any]
    is_array: Callable[[bytes | str], bool]
    step: Decoder[StepMessage]
    addressed: Decoder[Addressed]
    many: Decoder[ManySteps | PackedManySteps]
    array: Decoder[Sequence[Addressed]]
    raw: Decoder[RawSteps]
    items: Decoder[list[msgspec.Raw]]
    session_name: Decoder[SessionName]


def _to_json(answer: Answer) -> bytes:
    return orjson.dumps(answer, _scalar, orjson.OPT_SERIALIZE_NUMPY)


def _scalar(array: Any) -> Any:
    """Return the only number of an output without axes: `orjson` knows it, but not an array of no dimensions."""
    if isinstance(array, np.ndarray) and array.ndim == 0:
        return array[()]
    raise _misplaced(array)


def _misplaced(content: object) -> TypeError:
    return TypeError(f"{type(content).__name__} has no place in a message")


def _json_items(answers: list[dict[str, Any]]) -> bytes:
    return _to_json(answers)[1:-1]


def _json_answers(roster: Roster, answers: Answers) -> bytes:
    return _json_items(rest_answers(roster.session_ids, answers, list))


def _json_array(pieces: Sequence[bytes], _count: int) -> bytes:
    return b"[%b]" % b",".join(pieces)


def _is_json_array(content: bytes | str) -> bool:
    return content.lstrip()[:1] in ("[", b"[")


def _tensor(array: Any) -> dict[str, Any]:
    if not isinstance(array, np.ndarray | np.generic):
        raise _misplaced(array)
    return {"shape": array.shape, "data": array.astype("<f4", copy=False).tobytes()}


_to_msgpack: Callable[[Answer], bytes] = msgspec.msgpack.Encoder(enc_hook=_tensor).encode


def _tensors(rows: NDArray[np.float32]) -> list[dict[str, Any]]:
    """Return what `_tensor` does, for each row."""
    shape, data = rows.shape[1:], rows.astype("<f4", copy=False).tobytes()
    size = len(data) // len(rows)
    return [{"shape": shape, "data": data[at : at + size]} for at in range(0, len(data), size)]


def _msgpack_items(answers: list[dict[str, Any]]) -> bytes:
    return _to_msgpack(answers)[len(_array_head(len(answers))) :]


def _msgpack_answers(roster: Roster, answers: Answers) -> bytes:
    return _msgpack_items(rest_answers(roster.session_ids, answers, _tensors))


def _msgpack_array(pieces: Sequence[bytes], count: int) -> bytes:
    return b"".join((_array_head(count), *pieces))


def _array_head(count: int) -> bytes:
    """Return how an array of so many begins: fixarray, array 16, array 32."""
    if count < 1 << 4:
        return struct.pack(">B", 0x90 | count)
    return struct.pack(">BH", 0xDC, count) if count < 1 << 16 else struct.pack(">BI", 0xDD, count)


def _is_msgpack_array(content: bytes | str) -> bool:
    first = content[0] if content and isinstance(content, bytes) else 0
    return first >> 4 == 0x9 or first in (0xDC, 0xDD)


JSON = Encoding(
    media_type="application/json",
    subprotocol="conveyor.v1.json",
    binary=False,
    encode=_to_json,
    encode_answers=_json_answers,
    encode_items=_json_items,
    array_of=_json_array,
    fragment=orjson.Fragment,
    is_array=_is_json_array,
    step=msgspec.json.Decoder(StepMessage),
    addressed=msgspec.json.Decoder(AddressedStep),
    many=msgspec.json.Decoder(ManySteps),
    array=msgspec.json.Decoder(list[AddressedStep]),
    raw=msgspec.json.Decoder(RawSteps),
    items=msgspec.json.Decoder(list[msgspec.Raw]),
    session_name=msgspec.json.Decoder(SessionName),
)

MSGPACK = Encoding(
    media_type="application/msgpack",
    subprotocol="conveyor.v1.msgpack",
    binary=True,
    encode=_to_msgpack,
    encode_answers=Casts(_msgpack_answers).answers,
    encode_items=_msgpack_items,
    array_of=_msgpack_array,
    fragment=msgspec.Raw,
    is_array=_is_msgpack_array,
    step=msgspec.msgpack.Decoder(PackedStep),
    addressed=msgspec.msgpack.Decoder(PackedAddressedStep),
    many=msgspec.msgpack.Decoder(PackedManySteps),
    array=msgspec.msgpack.Decoder(list[PackedAddressedStep]),
    raw=msgspec.msgpack.Decoder(RawSteps),
    items=msgspec.msgpack.Decoder(list[msgspec.Raw]),
    session_name=msgspec.msgpack.Decoder(SessionName),
)

SUBPROTOCOLS = {encoding.subprotocol: encoding for encoding in (JSON, MSGPACK)}

_MSGPACK = MSGPACK.media_type.encode()


def of_request(headers: Sequence[tuple[bytes, bytes]]) -> tuple[Encoding, Encoding]:
    """Return the encodings of a request's body and of its answer: JSON, unless its raw headers name MessagePack."""
    sent = wanted = JSON
    for name, value in headers:
        if name == b"content-type" and value.startswith(_MSGPACK):
            sent = MSGPACK
        elif name == b"accept" and _MSGPACK in value:
            wanted = MSGPACK
    return sent, wanted
