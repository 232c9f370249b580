"""Numbers for sessions."""

from collections.abc import Sequence
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.core.session import SessionKey

_WIDTH = 8
"""Places in a bucket: as many hashes as fit into one line of a processor's cache."""
_BUCKET = Struct(f"{_WIDTH}q")
_FILL = 2
"""Sessions to a bucket on average, at most. Those that wait to be parted have twice as many then."""
_AT_ONCE = 64
"""Buckets that are parted at a time."""
_FREE = -1
"""Neither a number nor a hash: no hash in Python is -1."""


class Index:
    """A number for each session, from 0 on; a number that has come free is given to the next one.

    A hash table whose buckets are rows of arrays, so that the sessions of a batch are looked up side by side: where a
    million are remembered nearly all of that is waiting for memory, and so a batch waits little longer than one session
    does. A dictionary has to be asked for one after the other, and waits for each at its table, its entry, the key, the
    id and the number. Besides, here the garbage collector has nothing to follow.

    A session is known by its hash alone, of 64 bits that each process seeds anew. Two that ever had the same would be
    taken for one, and what is found might be the other's. It would be a record like one that is out of date: whoever
    runs on it cannot write, for that takes the version which the session has in the store, and reads it then.

    The table grows by linear hashing (Litwin, 1980): one bucket is parted in two at a time, so nobody waits until a
    million have been moved.
    """

    def __init__(self) -> None:
        self._hash_of: NDArray[np.int64] = np.empty(_AT_ONCE, np.int64)
        """By number."""
        self._made = 0
        self._free: list[int] = []
        self._buckets = _AT_ONCE
        self._parted = 0
        """Of so many buckets some sessions have moved to a bucket that is `_buckets` further on."""
        self._set_up(np.full((2 * _AT_ONCE, _WIDTH), _FREE, np.int64), np.full((2 * _AT_ONCE, _WIDTH), _FREE, np.int32))
        self._spilt: dict[int, int] = {}
        """The numbers of those, by hash, whose bucket was full."""

    def _set_up(self, hashes: NDArray[np.int64], numbers: NDArray[np.int32]) -> None:
        self._hashes, self._numbers = hashes, numbers
        self._bytes = hashes.data.cast("B")

    def __len__(self) -> int:
        return self._made - len(self._free)

    def get(self, key: SessionKey) -> int | None:
        hashed = hash(key)
        bucket = self._bucket(hashed)
        hashes = self._row(bucket)
        if hashed in hashes:
            return int(self._numbers[bucket, hashes.index(hashed)])
        return self._spilt.get(hashed)

    def numbers(self, keys: Sequence[SessionKey]) -> NDArray[np.int64]:
        """Return the numbers of sessions, -1 for those that have none."""
        hashes = np.fromiter(map(hash, keys), np.int64, len(keys))
        buckets = hashes & (2 * self._buckets - 1)
        buckets[buckets >= self._buckets + self._parted] -= self._buckets
        same = self._hashes.take(buckets, axis=0) == hashes[:, None]
        found: NDArray[np.int32] = self._numbers.take(buckets, axis=0)[same]
        if len(found) == len(keys):
            return found.astype(np.int64)
        numbers = np.empty(len(keys), np.int64)
        here = same.any(axis=1)
        numbers[here] = found
        numbers[~here] = [self._spilt.get(hashed, _FREE) for hashed in hashes[~here].tolist()]
        return numbers

    def add(self, key: SessionKey) -> int:
        """Give a number to a session that has none."""
        if self._free:
            number = self._free.pop()
        else:
            number = self._made
            self._made += 1
            if number == len(self._hash_of):
                self._hash_of = twice_as_long(self._hash_of)
            if number >= _FILL * (self._buckets + self._parted):
                self._part()
        self._give(number, hash(key))
        return number

    def remove(self, number: int) -> None:
        """Take a number from its session."""
        self._take(number)
        self._free.append(number)

    def pass_on(self, number: int, key: SessionKey) -> None:
        """Give a session's number to another one, which has none."""
        self._take(number)
        self._give(number, hash(key))

    def _bucket(self, hashed: int) -> int:
        bucket = hashed & (2 * self._buckets - 1)
        return bucket if bucket < self._buckets + self._parted else bucket - self._buckets

    def _row(self, bucket: int) -> tuple[int, ...]:
        """Return the hashes that are in a bucket."""
        return _BUCKET.unpack_from(self._bytes, _BUCKET.size * bucket)

    def _give(self, number: int, hashed: int) -> None:
        self._hash_of[number] = hashed
        bucket = self._bucket(hashed)
        hashes = self._row(bucket)
        if hashed in hashes:
            return  # for as long as the other one of this hash is there, this is not found
        if _FREE in hashes:
            place = hashes.index(_FREE)
            self._hashes[bucket, place] = hashed
            self._numbers[bucket, place] = number
        else:
            self._spilt[hashed] = number

    def _take(self, number: int) -> None:
        hashed = int(self._hash_of[number])
        bucket = self._bucket(hashed)
        numbers = self._numbers[bucket].tolist()
        if number in numbers:
            place = numbers.index(number)
            self._hashes[bucket, place] = self._numbers[bucket, place] = _FREE
        elif self._spilt.get(hashed) == number:
            del self._spilt[hashed]

    def _part(self) -> None:
        """Make two of each of the next buckets that have not been parted yet, by one more bit of their hashes."""
        old, new = self._parted, self._buckets + self._parted
        old_ones, new_ones = slice(old, old + _AT_ONCE), slice(new, new + _AT_ONCE)
        going = self._hashes[old_ones] & self._buckets != 0  # what is free goes, too: it is the same there
        for rows in (self._hashes, self._numbers):
            rows[new_ones] = np.where(going, rows[old_ones], _FREE)
            rows[old_ones][going] = _FREE
        self._parted += _AT_ONCE
        if self._parted == self._buckets:
            self._buckets, self._parted = 2 * self._buckets, 0
            self._set_up(twice_as_long(self._hashes), twice_as_long(self._numbers))


def twice_as_long(rows: NDArray[Any]) -> NDArray[Any]:
    """Return rows with room for as many more behind them, in memory that takes none before it is written to."""
    longer = np.empty((2 * len(rows), *rows.shape[1:]), rows.dtype)
    longer[: len(rows)] = rows
    return longer
