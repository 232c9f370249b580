"""Rows of memory for records of one layout: all that may ever be needed are reserved at once, and none is copied to
make room for more."""

import mmap

import numpy as np
from numpy.typing import NDArray

from service.core.columns import Layout, Rows

_SPARE_BYTES = 16 * 2**20
"""What is kept of freed memory for what comes next."""


class Slab:
    """Records of one layout, in the first `len` of `rows`. Each belongs to somebody, who has a number.

    Of the address space that is reserved the system makes memory what is written to, and what is freed at the end goes
    back to it. So what comes free elsewhere is filled from the end. Where less than `most` rows can be reserved
    (``ulimit -v``, a system that promises no more than it has), `capacity` is less: at most half of what could be.
    """

    def __init__(self, layout: Layout, number: int, most: int) -> None:
        self.layout = layout
        self.number = number
        self._memory, self.rows, self._owners = _reserve(most, layout.size)
        self._length = 0
        self._used_bytes = 0

    def __len__(self) -> int:
        return self._length

    @property
    def capacity(self) -> int:
        return len(self.rows)

    @property
    def owners(self) -> NDArray[np.int32]:
        """Whose the rows are."""
        return self._owners[: self._length]

    def add(self, owner: int) -> int:
        """Return a row that is this owner's from now on, with whatever is in it."""
        row = self._length
        self._owners[row] = owner
        self._length += 1
        return row

    def remove(self, row: int) -> int | None:
        """Free a row. Returns the owner whose record has been moved there, if one has."""
        self._length = last = self._length - 1
        moved = None
        if row != last:
            self.rows[row] = self.rows[last]
            self._owners[row] = self._owners[last]
            moved = int(self._owners[row])
        self._give_back()
        return moved

    def _give_back(self) -> None:
        self._used_bytes = max(self._used_bytes, (self._length + 1) * self.layout.size)
        if self._memory is None or self._used_bytes - self._length * self.layout.size < _SPARE_BYTES:
            return
        start = -(-self._length * self.layout.size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory.madvise(mmap.MADV_DONTNEED, start, self._used_bytes - start)
        self._used_bytes = start


def _reserve(most: int, size: int) -> tuple[mmap.mmap | None, Rows, NDArray[np.int32]]:
    rows = most
    while rows:
        try:
            memory = mmap.mmap(-1, rows * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            owners = np.empty(rows, np.int32)
        except (OSError, MemoryError, OverflowError):
            rows //= 2
            continue
        if rows == most:
            return memory, np.frombuffer(memory, np.uint8).reshape(rows, size), owners
        memory.close()
        most = rows = rows // 2  # somebody else will need some of what is left
    return None, np.empty((0, size), np.uint8), np.empty(0, np.int32)
