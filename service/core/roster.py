"""Sessions that come together again and again, as those of a gateway do in each of its messages."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import overload

from service.core.session import SessionKey

_MOST = 2**15
"""Sessions in the rosters that are remembered, each with what is known of it: about a KiB for each."""
_SEEN = 4096
_PARTS = 8
_SMALL = 32
"""Sessions of a part from which on it is remembered. Batches mostly cut a roster at the same places."""


class Roster(Sequence[SessionKey]):
    """Distinct sessions of one tenant, in an order.

    The same sessions are mostly the same object, see `Rosters`, and so are the same parts of them. So what is found out
    about a roster may be kept for the next time that it comes: by the object, which is its own hash. `comes_again`
    tells of one that did, and of its remembered parts. Who knows it without having asked `Rosters` says so by `in_use`.
    """

    def __init__(self, keys: Sequence[SessionKey]) -> None:
        self._keys = tuple(keys)
        self.session_ids = tuple([key.session_id for key in keys])
        self.comes_again = self.in_use = False
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
        part = self._parts.get((start, stop)) if step == 1 else None
        if part is not None:
            part.comes_again = self.comes_again
            return part
        part = Roster(self._keys[i])
        if step == 1 and len(part) >= _SMALL:
            if len(self._parts) >= _PARTS:
                self._parts.clear()
            self._parts[start, stop] = part
        return part


class Rosters:
    """The rosters that came more than once, those that came last: `most` sessions in all of them."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._rosters: OrderedDict[tuple[str, tuple[str, ...]], Roster] = OrderedDict()
        self._sessions = 0
        self._seen: OrderedDict[int, None] = OrderedDict()

    def of(self, tenant: str, session_ids: tuple[str, ...]) -> Roster | None:
        """Return sessions of a tenant as a roster, the same as the last time; None where they are not distinct."""
        name = tenant, session_ids
        roster = self._rosters.get(name)
        if roster is not None:
            self._rosters.move_to_end(name)
            roster.comes_again = True
            return roster
        if len(set(session_ids)) < len(session_ids):
            return None
        # For half of what they cost when they are made one by one.
        roster = Roster(list(map(tuple.__new__, repeat(SessionKey), zip(repeat(tenant), session_ids))))
        if self._comes_for_the_first_time(hash(name)) or len(roster) > self._most:
            return roster  # what comes once is not to be remembered in the place of what does again
        self._rosters[name] = roster
        self._sessions += len(roster)
        while self._sessions > self._most:
            self._forget_one()
        return roster

    def _forget_one(self) -> None:
        """Forget the roster that came before all others, unless it has been in use since: then it is the last."""
        name, oldest = self._rosters.popitem(last=False)
        if oldest.in_use:
            oldest.in_use = False
            self._rosters[name] = oldest
        else:
            self._sessions -= len(oldest)

    def _comes_for_the_first_time(self, name: int) -> bool:
        if name in self._seen:
            del self._seen[name]
            return False
        self._seen[name] = None
        if len(self._seen) > _SEEN:
            self._seen.popitem(last=False)
        return True
