"""What a gateway sends and gets, in MessagePack: one timestep for each of its sessions."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from service.api.dependencies import Limits
from service.api.encodings import MSGPACK
from service.api.many import timesteps_of
from service.api.moulds import Timesteps
from service.api.steps import decode_array
from service.core.errors import InvalidRequest

LIMITS = Limits(max_width=64, max_chunk=9, max_frame_steps=1024, max_in_flight=8, ticket_ttl_s=1.0)


def message(ids: Sequence[str], x: Any, steps: Sequence[int] | None = None, *, tensors: bool = True) -> bytes:
    """Return a message with the rows of `x` for these sessions, as tensors or as numbers."""
    items: list[dict[str, Any]] = []
    for i, (name, row) in enumerate(zip(ids, np.asarray(x, np.float64), strict=True)):
        numbers = {"shape": [len(row)], "data": row.astype("<f4").tobytes()} if tensors else row.tolist()
        items.append({"session_id": name, "x": numbers} | ({} if steps is None else {"step": steps[i]}))
    return msgspec.msgpack.encode(items)


def decoded(content: bytes) -> Timesteps | None:
    """Read a message as every one is read that comes for the first time."""
    try:
        return timesteps_of(LIMITS, "t", decode_array(MSGPACK, content, LIMITS.max_frame_steps))
    except InvalidRequest:
        return None


def same(one: Timesteps | None, other: Timesteps | None) -> bool:
    """Return whether two readings are the same to the bit."""
    if one is None or other is None:
        return one is other
    return (
        one.roster is other.roster
        and one.x.dtype == other.x.dtype
        and one.x.tobytes() == other.x.tobytes()
        and one.x.shape == other.x.shape
        and one.numbers.dtype == other.numbers.dtype
        and one.numbers.tolist() == other.numbers.tolist()
    )
