"""Numbers for sessions."""

from collections.abc import Sequence
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from service.core.session import SessionKey

_NOBODY = ("", "")


class Index:
    """A number for each session, from 0 on; a number that has come free is given to the next one.

    The garbage collector has nothing to follow here, however many sessions there are: it stops to watch tuples of
    strings, and numbers it never does. So the keys are plain tuples; a `SessionKey` equals its own.
    """

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], int] = {}
        self._keys: list[tuple[str, str]] = []
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._numbers)

    def get(self, key: SessionKey) -> int | None:
        return self._numbers.get(key)

    def numbers(self, keys: Sequence[SessionKey]) -> NDArray[np.int64]:
        """Return the numbers of sessions, -1 for those that have none."""
        return np.fromiter(map(self._numbers.get, keys, repeat(-1)), np.int64, len(keys))

    def add(self, key: SessionKey) -> int:
        """Give a number to a session that has none."""
        if not self._free:
            self._free.append(len(self._keys))
            self._keys.append(_NOBODY)
        number = self._free.pop()
        self._give(number, key)
        return number

    def remove(self, number: int) -> None:
        """Take a number from its session."""
        del self._numbers[self._keys[number]]
        self._keys[number] = _NOBODY
        self._free.append(number)

    def pass_on(self, number: int, key: SessionKey) -> None:
        """Give a session's number to another one, which has none."""
        del self._numbers[self._keys[number]]
        self._give(number, key)

    def _give(self, number: int, key: SessionKey) -> None:
        self._keys[number] = plain = (key.tenant, key.session_id)
        self._numbers[plain] = number
