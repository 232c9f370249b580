"""Which of many numbered things has been left alone for longest."""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_PAGE = 1024
"""Touches that are looked at side by side."""
_FEWEST = 256


class _Page(NamedTuple):
    """Touches, one behind the other: of which thing, and the number of the touch."""

    things: NDArray[np.int32]
    touches: NDArray[np.int64]


class _Open:
    """A page that is being written: touches come one by one where sessions do, and an array for each would take more
    memory than a hundred touches."""

    def __init__(self) -> None:
        self._things = np.empty(_PAGE, np.int32)
        self._touches = np.empty(_PAGE, np.int64)
        self._length = 0

    def has_room(self, count: int) -> bool:
        return self._length + count <= _PAGE

    def write(self, things: NDArray[np.int32], touches: NDArray[np.int64]) -> None:
        end = self._length + len(things)
        self._things[self._length : end] = things
        self._touches[self._length : end] = touches
        self._length = end

    def page(self) -> _Page:
        return _Page(self._things[: self._length], self._touches[: self._length])


class Recency:
    """Things in the order in which they were touched last. They are numbered from 0, without great gaps.

    A touch is written behind all others, which voids the thing's one before. Void ones are cleared away as more are
    written, twice as many looked at as are written: so there are never more than a few for each thing, a touch costs a
    fraction of what it does in a linked list (`OrderedDict`), and nothing ever waits for a million to be moved.
    """

    def __init__(self) -> None:
        self._last: NDArray[np.int64] = np.zeros(_FEWEST, np.int64)
        """The number of each thing's last touch; 0 has none."""
        self._touched = 0
        self._known = 0
        self._fresh: list[int] = []
        self._coming: list[tuple[int, int]] = []
        self._cleared: deque[_Page] = deque()
        self._written: deque[_Page] = deque()
        self._open = _Open()
        self._length = 0

    @property
    def length(self) -> int:
        """Touches that are written down, void ones among them."""
        return self._length + len(self._coming) + len(self._fresh)

    def touch(self, things: Iterable[int]) -> None:
        """Put things behind all others, in this order."""
        self._fresh.extend(things)
        if len(self._fresh) >= _PAGE:
            self._write()

    def forget(self, thing: int) -> None:
        """Leave out a thing until it is touched again."""
        self._write()
        self._last[thing] = 0

    def oldest(self) -> int:
        """Return the thing that was touched before all others. Raises `IndexError` where there is none."""
        self._write()
        while True:
            while self._coming:
                thing, touch = self._coming[-1]
                if self._last[thing] == touch:
                    return thing
                self._coming.pop()
            if not self._cleared and not self._written:
                self._close()
            page = (self._cleared or self._written).popleft()
            self._length -= len(page.things)
            things, touches = self._valid(page)
            self._coming = list(zip(things.tolist(), touches.tolist(), strict=True))[::-1]

    def last_touches(self, things: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return numbers that are the smaller the longer ago a thing was touched."""
        self._write()
        return self._last[things]

    def _write(self) -> None:
        if not self._fresh:
            return
        things = np.array(self._fresh, np.int32)
        self._fresh.clear()
        self._known = max(self._known, int(things.max()) + 1)
        if self._known > len(self._last):
            self._last = np.concatenate([self._last, np.zeros(max(len(self._last), self._known), np.int64)])
        touches = np.arange(self._touched + 1, self._touched + 1 + len(things))
        self._touched += len(things)
        self._last[things] = touches  # of a thing that is there twice, the second
        if not self._open.has_room(len(things)):
            self._close()
        if self._open.has_room(len(things)):
            self._open.write(things, touches)
        else:
            self._written.append(_Page(things, touches))
        self._length += len(things)
        self._clear(2 * len(things))

    def _close(self) -> None:
        """Put the open page behind those that are written, if there is anything on it."""
        page = self._open.page()
        if len(page.things):
            self._written.append(page)
            self._open = _Open()

    def _clear(self, count: int) -> None:
        """Clear away what is void among the next `count` touches or so, where there is much of it."""
        while count > 0 and self._length > 2 * self._known + _PAGE:
            if not self._written:
                self._written, self._cleared = self._cleared, self._written
            page = self._written.popleft()
            valid = self._valid(page)
            count -= len(page.things)
            self._length -= len(page.things) - len(valid.things)
            if self._cleared and len(self._cleared[-1].things) + len(valid.things) <= _PAGE:
                before = self._cleared.pop()
                things = np.concatenate([before.things, valid.things])
                valid = _Page(things, np.concatenate([before.touches, valid.touches]))
            self._cleared.append(valid)

    def _valid(self, page: _Page) -> _Page:
        valid = self._last[page.things] == page.touches
        return page if valid.all() else _Page(page.things[valid], page.touches[valid])
