"""Sessions that come together again and again, as those of a gateway do in each of its messages."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import repeat
from typing import overload

from service.core.session import SessionKey

_REMEMBERED = 64
_PARTS = 8
"""Parts of a roster that are remembered. Batches mostly cut it at the same places."""


class Roster(Sequence[SessionKey]):
    """Distinct sessions of one tenant, in an order.

    The same sessions are mostly the same object, see `roster_of`, and so are the same parts of them. So what is found
    out about a roster may be kept for the next time that it comes: by the object, which is its own hash.
    """

    def __init__(self, keys: Sequence[SessionKey]) -> None:
        self._keys = tuple(keys)
        self.session_ids = tuple([key.session_id for key in keys])
        self._parts: dict[tuple[int, int], Roster] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[SessionKey]:
        return iter(self._keys)

    @overload
    def __getitem__(self, i: int) -> SessionKey: ...
    @overload
    def __getitem__(self, i: slice) -> "Roster": ...
    def __getitem__(self, i: "int | slice") -> "SessionKey | Roster":
        if not isinstance(i, slice):
            return self._keys[i]
        start, stop, step = i.indices(len(self._keys))
        if (start, stop, step) == (0, len(self._keys), 1):
            return self
        if step != 1:
            return Roster(self._keys[i])
        part = self._parts.get((start, stop))
        if part is None:
            if len(self._parts) >= _PARTS:
                self._parts.clear()
            part = self._parts[start, stop] = Roster(self._keys[start:stop])
        return part


@lru_cache(_REMEMBERED)
def roster_of(tenant: str, session_ids: tuple[str, ...]) -> Roster | None:
    """Return sessions of a tenant as a roster, the same one as the last time; None where they are not distinct."""
    if len(set(session_ids)) < len(session_ids):
        return None
    # For half of what they cost when they are made one by one.
    return Roster(list(map(tuple.__new__, repeat(SessionKey), zip(repeat(tenant), session_ids))))
