"""What a gateway sends and gets, in MessagePack: one timestep for each of its sessions."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np

from service.api.dependencies import Limits, Services
from service.api.encodings import MSGPACK
from service.api.many import timesteps_of
from service.api.moulds import Mould, Timesteps
from service.api.steps import decode_array
from service.core.errors import InvalidRequest
from service.core.roster import Roster, Rosters

LIMITS = Limits(max_width=64, max_chunk=9, max_frame_steps=1024, max_in_flight=8, ticket_ttl_s=1.0)


def message(ids: Sequence[str], x: Any, steps: Sequence[int] | None = None, *, tensors: bool = True) -> bytes:
    """Return a message with the rows of `x` for these sessions, as tensors or as numbers."""
    items: list[dict[str, Any]] = []
    for i, (name, row) in enumerate(zip(ids, np.asarray(x, np.float64), strict=True)):
        numbers = {"shape": [len(row)], "data": row.astype("<f4").tobytes()} if tensors else row.tolist()
        items.append({"session_id": name, "x": numbers} | ({} if steps is None else {"step": steps[i]}))
    return msgspec.msgpack.encode(items)


class Gateway:
    """A tenant's, with what the service remembers of rosters."""

    def __init__(self) -> None:
        self._services = cast("Services", SimpleNamespace(limits=LIMITS, rosters=Rosters()))

    def decoded(self, content: bytes) -> Timesteps | None:
        """Read a message as every one is read that comes for the first time. Raises `InvalidRequest`."""
        return timesteps_of(self._services, "t", decode_array(MSGPACK, content, LIMITS.max_frame_steps))

    def asked(self, content: bytes) -> Timesteps:
        """Read a message of sessions that have come before."""
        for _ in range(3):
            found = self.decoded(content)
        assert found is not None
        assert found.roster.comes_again
        return found

    def mould_of(self, content: bytes) -> Mould | None:
        return Mould.of(content, self.asked(content), self.decoded)

    def is_never_wrong(self, mould: Mould, content: bytes, roster: Roster) -> bool:
        """Return whether a mould reads what the decoder does, or leaves it to that."""
        found = mould.read(content, roster)
        if found is None:
            return True
        try:
            return same(found, self.decoded(content))
        except InvalidRequest:
            return False


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
