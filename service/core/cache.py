"""The records that this process read or sent to be written last, as many as fit into so much memory.

Those of one model are rows of one matrix: a batch takes its sessions' rows out, and puts them back, all at once.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from service.core.columns import Layout, Rows
from service.core.index import Index, twice_as_long
from service.core.recency import Recency
from service.core.record import life_of
from service.core.roster import Roster
from service.core.session import SessionKey
from service.core.slab import Slab

BESIDE = 144
"""Bytes that are counted for a session beside its record: what a process grew by beyond the records, for each of up to
a million sessions, and a little more (docs/decisions/0478)."""

_FEWEST = 256
_ROW_BITS = 40
_ROW = 2**_ROW_BITS - 1
_DEAD_AFTER = 1024
"""After so many newcomers, twice as many are looked at that may have expired: who comes and goes leaves nothing behind.
The time is what the latest record says: if it was not written just now, some who are dead stay for longer."""
_FORGOTTEN_AT_ONCE = 16
"""The share, one in so many, of a slab that could not be made as large as it may be: it is forgotten together."""


class Place(NamedTuple):
    """The rows of a slab in which the records of some sessions are, as long as nothing has been moved since."""

    slab: Slab
    rows: NDArray[np.int64]
    moves: int

    def part(self, rows: slice) -> "Place":
        return Place(self.slab, self.rows[rows], self.moves)

    def pick(self, rows: Sequence[int]) -> "Place":
        return Place(self.slab, self.rows[rows], self.moves)


class Found(NamedTuple):
    """Sessions, by their places in what was asked for, and where their records are."""

    at: Sequence[int]
    place: Place


class _Known(NamedTuple):
    """Where all sessions of a roster are, as long as no row has been taken from anybody since."""

    moves: int
    entries: list[int]
    found: list[Found]


class RecordCache:
    """A mapping from sessions to records that takes `size` bytes at most, and forgets the one untouched for longest.

    A session is an entry, which has a number.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._index = Index()
        self._places: NDArray[np.int64] = np.empty(_FEWEST, np.int64)
        """Where an entry's record is: the slab's number, and behind it the row."""
        self._slabs: dict[Layout, Slab] = {}
        self._numbered: dict[int, Slab] = {}
        self._slabs_made = 0
        self._recency = Recency()
        self._newcomers = 0
        self._moves = 0  # how often a row has been taken from somebody
        self._known: WeakKeyDictionary[Roster, _Known] = WeakKeyDictionary()

    def __len__(self) -> int:
        return len(self._index)

    @property
    def used(self) -> int:
        """Bytes that are taken."""
        return self._used

    def get(self, key: SessionKey) -> tuple[bytes, Layout] | None:
        entry = self._index.get(key)
        if entry is None:
            return None
        self._recency.touch((entry,))
        slab, row = self._place(entry)
        return slab.layout.trimmed(slab.rows[row].tobytes()), slab.layout

    def put(self, key: SessionKey, record: bytes, layout: Layout) -> None:
        """Keep a record that fits its layout."""
        slab, entry = self._slabs.get(layout), self._index.get(key)
        if slab is not None and entry is not None:
            held, row = self._place(entry)
            if held is slab:
                slab.rows[row] = np.frombuffer(layout.filled(record), np.uint8)
                return
        self.put_rows([key], layout, layout.rows([record]))

    def drop(self, key: SessionKey) -> None:
        entry = self._index.get(key)
        if entry is not None:
            self._drop(entry)

    def _drop(self, entry: int) -> None:
        slab, row = self._place(entry)
        self._moves += 1
        moved = slab.remove(row)
        if moved is not None:
            self._places[moved] = self._places[entry]
        self._index.remove(entry)
        self._recency.forget(entry)
        self._used -= _cost(slab.layout)
        if not len(slab):  # of a model that is served no longer, perhaps
            del self._slabs[slab.layout], self._numbered[slab.number]
            self._known.clear()  # which may hold it

    def find(self, keys: Sequence[SessionKey]) -> tuple[list[Found], list[int]]:
        """Return where sessions' records are, and the places of those whose are not here, in their order."""
        if not isinstance(keys, Roster):
            return self._find(keys)[1:]
        known = self._known.get(keys)
        if known is None or known.moves != self._moves:
            entries, found, missing = self._find(keys)
            if missing:
                return found, missing
            self._known[keys] = _Known(self._moves, entries, found)
            return found, missing
        self._recency.touch(known.entries)
        return known.found, []

    def _find(self, keys: Sequence[SessionKey]) -> tuple[list[int], list[Found], list[int]]:
        entries = self._index.numbers(keys)
        at: Sequence[int] = range(len(keys))
        missing: list[int] = []
        here = entries >= 0
        if not here.all():
            missing = np.flatnonzero(~here).tolist()
            at = np.flatnonzero(here).tolist()
            entries = entries[here]
        touched: list[int] = entries.tolist()
        self._recency.touch(touched)
        return touched, list(self._by_slab(at, self._places[entries])), missing

    def put_rows(self, keys: Sequence[SessionKey], layout: Layout, records: Rows, place: Place | None = None) -> None:
        """Keep records of one layout, as `Columns` has them: those in the rows, of distinct sessions.

        `place` is where their records were found: among a million sessions, to look for them is a good part of what a
        step costs. Where one is of a session that was not here, in this layout, it is a touch of all, in their order.
        """
        if place is not None and place.moves == self._moves:
            place.slab.rows[place.rows] = records
            return
        slab = self._slabs.get(layout)
        entries = self._index.numbers(keys)
        if slab is None or not self._are_in(slab, entries):
            slab = self._new_slab(layout) if slab is None else slab
            fits = min(slab.capacity, self._most(layout))
            if (unfit := len(keys) - fits) > 0:
                for key in keys[:unfit]:
                    self.drop(key)
                keys, records = keys[unfit:], records[unfit:]
                if not keys:
                    return
            self._admit(keys, slab)
            self._newcomers += len(keys)
            entries = self._index.numbers(keys)
        slab.rows[self._places[entries] & _ROW] = records
        if self._newcomers >= _DEAD_AFTER:  # who came now is among those that are looked at
            self._forget_dead(2 * self._newcomers, now_ms=life_of(records[-1].data)[0])
            self._newcomers = 0

    def _place(self, entry: int) -> tuple[Slab, int]:
        place = int(self._places[entry])
        return self._numbered[place >> _ROW_BITS], place & _ROW

    def _by_slab(self, at: Sequence[int], places: NDArray[np.int64]) -> Iterator[Found]:
        if not len(places):
            return
        if len(self._slabs) == 1:
            (slab,) = self._slabs.values()
            yield Found(at, Place(slab, places & _ROW, self._moves))
            return
        numbers = places >> _ROW_BITS
        for slab in self._slabs.values():
            rows = np.flatnonzero(numbers == slab.number)
            if len(rows):
                yield Found([at[i] for i in rows.tolist()], Place(slab, places[rows] & _ROW, self._moves))

    def _are_in(self, slab: Slab, entries: NDArray[np.int64]) -> bool:
        if (entries < 0).any():
            return False
        return len(self._slabs) == 1 or bool((self._places[entries] >> _ROW_BITS == slab.number).all())

    def _new_slab(self, layout: Layout) -> Slab:
        self._slabs_made += 1
        return Slab(layout, self._slabs_made, self._most(layout))

    def _most(self, layout: Layout) -> int:
        """Return how many records of a layout there would be if there were no others."""
        return self._size // _cost(layout)

    def _admit(self, keys: Sequence[SessionKey], slab: Slab) -> None:
        """Give sessions, no more than fit, a row in a slab each, where they have none."""
        for key in keys:
            entry = self._index.get(key)
            if entry is not None and self._place(entry)[0] is not slab:
                self._drop(entry)
        entries = self._index.numbers(keys)
        self._recency.touch(entries[entries >= 0].tolist())
        new = np.flatnonzero(entries < 0).tolist()
        excess = len(slab) + len(new) - slab.capacity
        if excess > 0 and slab.capacity < self._most(slab.layout):
            self._thin_out(slab, excess, kept=len(keys) - len(new))
        for i in new:
            entry = self._taken_over(slab)
            if entry is None:
                self._new_entry(keys[i], slab)
            else:
                self._index.pass_on(entry, keys[i])
        self._recency.touch(self._index.numbers(keys).tolist())

    def _forget_dead(self, most: int, now_ms: int) -> None:
        """Forget those that have expired of the sessions that were left alone for longest, up to one that has not."""
        for _ in range(min(most, len(self._index))):
            oldest = self._recency.oldest()
            slab, row = self._place(oldest)
            if life_of(slab.rows[row].data)[1] > now_ms:
                return
            self._drop(oldest)

    def _thin_out(self, slab: Slab, count: int, *, kept: int) -> None:
        """Forget so many sessions of a slab, or more, as to look through it takes long; but not the last `kept`."""
        some = min(max(count, len(slab) // _FORGOTTEN_AT_ONCE), len(slab) - kept)
        order = np.argsort(self._recency.last_touches(slab.owners))[:some]
        for entry in slab.owners[order].tolist():
            self._drop(entry)

    def _taken_over(self, slab: Slab) -> int | None:
        """Forget sessions until there is room for one in this slab; return the entry of the last, if it was in it."""
        while self._used + _cost(slab.layout) > self._size:
            oldest = self._recency.oldest()
            if self._places[oldest] >> _ROW_BITS == slab.number:
                self._moves += 1
                self._recency.forget(oldest)
                return oldest
            self._drop(oldest)
        return None

    def _new_entry(self, key: SessionKey, slab: Slab) -> None:
        """Make an entry, with a row in this slab."""
        self._slabs[slab.layout] = self._numbered[slab.number] = slab  # not yet, or no longer, where it has no others
        entry = self._index.add(key)
        if entry == len(self._places):
            self._places = twice_as_long(self._places)
        self._places[entry] = slab.number << _ROW_BITS | slab.add(entry)
        self._used += _cost(slab.layout)


def _cost(layout: Layout) -> int:
    return layout.size + BESIDE
