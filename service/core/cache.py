"""The records that this process committed or read last: those of one model in the rows of one matrix.

A batch takes its sessions' rows out, and puts them back, all at once.
"""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from service.core.columns import Layout, Rows
from service.core.session import SessionKey

_FEWEST_ROWS = 256


class Slab:
    """Records of one layout. Rows that are not `free` are somebody's."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.rows: Rows = np.empty((0, layout.size), np.uint8)
        self.free: list[int] = []

    def take(self) -> int:
        """Return a row that is free from now on no longer."""
        if not self.free:
            had = len(self.rows)
            self.rows = np.concatenate([self.rows, np.empty((max(had, _FEWEST_ROWS), self.layout.size), np.uint8)])
            self.free.extend(range(len(self.rows) - 1, had - 1, -1))
        return self.free.pop()


Place = tuple[Slab, int]
"""A row of a slab."""


class RecordCache:
    """A mapping of at most `size` sessions to records that forgets the one untouched for longest."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._places: OrderedDict[SessionKey, Place] = OrderedDict()
        self._slabs: dict[Layout, Slab] = {}

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: SessionKey) -> tuple[bytes, Layout] | None:
        place = self._places.get(key)
        if place is None:
            return None
        self._places.move_to_end(key)
        slab, row = place
        return slab.layout.trimmed(slab.rows[row].tobytes()), slab.layout

    def put(self, key: SessionKey, record: bytes, layout: Layout) -> None:
        """Keep a record that fits its layout."""
        slab = self._slab(layout)
        row = self._row(key, self._places.get(key), slab)
        slab.rows[row] = np.frombuffer(layout.filled(record), np.uint8)
        self._forget()

    def drop(self, key: SessionKey) -> None:
        if (place := self._places.pop(key, None)) is not None:
            self._free(place)

    def find(self, keys: Sequence[SessionKey]) -> list[Place | None]:
        """Return where sessions' records are, None where they are not here. It holds until something is put."""
        if len(self._places) > self._size // 2:  # before, nothing is forgotten for long
            for key in keys:
                if key in self._places:
                    self._places.move_to_end(key)
        return list(map(self._places.get, keys))

    def put_rows(self, keys: Sequence[SessionKey], layout: Layout, records: Rows) -> None:
        """Keep records of one layout, as `Columns` has them: those in the rows, of distinct sessions."""
        slab = self._slab(layout)
        rows = [self._row(key, place, slab) for key, place in zip(keys, map(self._places.get, keys), strict=True)]
        slab.rows[rows] = records
        self._forget()

    def _slab(self, layout: Layout) -> Slab:
        slab = self._slabs.get(layout)
        if slab is None:
            slab = self._slabs[layout] = Slab(layout)
        return slab

    def _forget(self) -> None:
        while len(self._places) > self._size:
            self._free(self._places.popitem(last=False)[1])

    def _row(self, key: SessionKey, place: Place | None, slab: Slab) -> int:
        if place is not None:
            if place[0] is slab:
                return place[1]
            self._free(place)
        row = slab.take()
        self._places[key] = slab, row
        return row

    def _free(self, place: Place) -> None:
        slab, row = place
        slab.free.append(row)
        if len(slab.free) == len(slab.rows):  # of a model that is served no longer, perhaps
            del self._slabs[slab.layout]
