"""Records as Redis keeps them: packed without losing a bit, where that takes less memory.

A float32 has 32 bits, of which the numbers of one session need fewer: their exponents lie close together. Packed, a
number has 29. Of eleven numbers, ten stay where they are, each in a word of 32 bits; the eleventh is cut into pieces of
3 bits, which fill the words of the others. As in `service.core.record`, all is little-endian:

============  ===================================================================================================
bytes         what
============  ===================================================================================================
as there      header and names, but format 2; the lengths are those of the record as it was
1 per part    top: the uppermost 7 bits, without the sign, of the number that is largest but for its sign, for the
              states and for the outputs. A part that is empty has none
4 per word    bits 0 to 27: magnitude; bits 28 to 30: a piece of another number; bit 31: sign
============  ===================================================================================================

A magnitude is what a number's lower 31 bits say as an integer, less the base of its part, which is (top - 15) * 2^24 - 1;
but 0 is the number zero. That has room for zeros and for numbers within a factor of 2^30 of the largest. A record with
others stays as it is. Of F numbers, states before outputs, the last F // 11 are cut, the sign being the lowest bit: the
lowest pieces of all of them into the first F // 11 words, the next into those behind, and so on.
"""

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from service.core.record import FLOAT_BYTES, FORMAT, FORMAT_AT, HEADER, LENGTHS_SLICE, PACKED

T = TypeVar("T")

Rows = NDArray[np.uint8]
"""Records as a matrix, one in each row. They are of one kind: names, states and outputs are as long in one as in all."""
Words = NDArray[np.uint32]
Done = tuple[Rows, NDArray[np.bool_]] | None
"""Records in their other form, and which of them have one; None where none has."""

_PIECES, _PIECE_BITS = 10, 3
_HIGHEST_TOP = 127
_PACKED = bytes([PACKED])
_REDIS_BYTES = 6
"""What Redis puts around a string of 256 bytes to 64 KiB: its header, and a zero behind it."""


def _word(n: int) -> Words:
    """Return a number as numpy takes it fastest, which shows where records come singly."""
    return np.array(n, np.uint32)


_UNSIGNED, _TOP, _BELOW_TOP = _word(0x7FFF_FFFF), _word(0x7F00_0000), _word((15 << 24) + 1)
_MAGNITUDE, _SPARE, _OWN = _word(0x0FFF_FFFF), _word(0x7000_0000), _word(0x8FFF_FFFF)
_TOP_AT, _SPARE_AT, _SIGN_AT, _ONE, _PIECE = _word(24), _word(28), _word(31), _word(1), _word(7)
_PIECES_AT = np.arange(0, _PIECES * _PIECE_BITS, _PIECE_BITS, dtype=np.uint32)[:, None]


def pack(records: Sequence[bytes]) -> list[bytes]:
    """Return each record packed, or as it is where it does not fit or would take no less memory."""
    return _by_kind(records, pack_rows)


def unpack(values: Sequence[T]) -> list[T | bytes]:
    """Return packed records as they were before, and all else, be it damaged or no record, as it is."""
    found: list[T | bytes] = list(values)
    places = [i for i, value in enumerate(values) if isinstance(value, bytes) and value[FORMAT_AT : FORMAT_AT + 1] == _PACKED]
    records = [cast("bytes", values[i]) for i in places]
    for i, record in zip(places, _by_kind(records, unpack_rows), strict=True):
        found[i] = record
    return found


def pack_rows(rows: Rows) -> Done:
    """Pack records of one kind."""
    packing = _packing_of(rows)
    return packing.pack(rows) if packing and packing.gains and rows.shape[1] == packing.size else None


def unpack_rows(rows: Rows) -> Done:
    """Unpack packed records of one kind. Those that have no other form are damaged."""
    packing = _packing_of(rows)
    return packing.unpack(rows) if packing and rows.shape[1] == packing.packed_size else None


def _by_kind(records: Sequence[bytes], transform: Callable[[Rows], Done]) -> list[bytes]:
    """Return records in their other form, where they have one."""
    kinds = [(len(record), record[LENGTHS_SLICE]) for record in records]
    if len(set(kinds)) <= 1:
        return _transformed(records, transform) if records else []
    found = list(records)
    for kind in set(kinds):
        same = [i for i, each in enumerate(kinds) if each == kind]
        for i, record in zip(same, _transformed([records[i] for i in same], transform), strict=True):
            found[i] = record
    return found


def _transformed(records: Sequence[bytes], transform: Callable[[Rows], Done]) -> list[bytes]:
    """Do for records of one kind what `_by_kind` does."""
    if len(records[0]) < HEADER.size:
        return list(records)
    done = transform(np.frombuffer(b"".join(records), np.uint8).reshape(len(records), -1))
    if done is None:
        return list(records)
    rows, fine = done
    whole, size = rows.tobytes(), rows.shape[1]
    made = [whole[start : start + size] for start in range(0, len(whole), size)]
    if fine.all():
        return made
    return [new if fits else record for new, record, fits in zip(made, records, fine.tolist(), strict=True)]


def _packing_of(rows: Rows) -> "_Packing | None":
    return _remembered(rows[0, LENGTHS_SLICE].tobytes())


class _Packing:
    """How records of one kind are packed. `gains` tells whether that takes less memory.

    `parts` are the lengths of what is there of states and outputs, in numbers.
    """

    def __init__(self, tops_at: int, parts: Sequence[int]) -> None:
        numbers = sum(parts)
        self._parts = parts
        self._starts = np.cumsum([0, *parts[:-1]])
        self._cut = numbers // (1 + _PIECES)
        self._words = numbers - self._cut
        self._carrying = _PIECES * self._cut
        self._tops_at, self._words_at = tops_at, tops_at + len(parts)
        self.size = tops_at + FLOAT_BYTES * numbers
        self.packed_size = self._words_at + FLOAT_BYTES * self._words
        self.gains = _allocated(self.packed_size) < _allocated(self.size)

    def pack(self, rows: Rows) -> Done:
        numbers = _words(rows[:, self._tops_at :])
        unsigned = numbers & _UNSIGNED
        tops = np.maximum.reduceat(unsigned, self._starts, axis=1)
        words = numbers - np.repeat((tops & _TOP) - _BELOW_TOP, self._parts, axis=1)
        fits = rows[:, FORMAT_AT] == FORMAT
        # What lies below its base has wrapped round, into the spare bits: they are 0 down to a seventh of the way.
        if np.bitwise_or.reduce(words, axis=None) & _SPARE:
            zero = unsigned == 0
            words[zero] = numbers[zero]
            fits &= ~(words & _SPARE).any(axis=1)
        cut = words[:, self._words :]
        pieces = ((cut << _ONE) | (cut >> _SIGN_AT))[:, None] >> _PIECES_AT
        pieces &= _PIECE
        pieces <<= _SPARE_AT
        words[:, : self._carrying] |= pieces.reshape(len(rows), -1)
        packed = self._with_head(rows, PACKED, self.packed_size)
        packed[:, self._tops_at : self._words_at] = tops >> _TOP_AT
        packed[:, self._words_at :] = _bytes(words[:, : self._words])
        return packed, fits

    def unpack(self, rows: Rows) -> Done:
        words = _words(rows[:, self._words_at :])
        tops = rows[:, self._tops_at : self._words_at]
        numbers = np.empty((len(rows), self._words + self._cut), np.uint32)
        np.bitwise_and(words, _OWN, out=numbers[:, : self._words])
        pieces = words[:, : self._carrying].reshape(-1, _PIECES, self._cut) >> _SPARE_AT
        pieces &= _PIECE
        pieces <<= _PIECES_AT
        cut = np.bitwise_or.reduce(pieces, axis=1)
        np.bitwise_or(cut >> _ONE, cut << _SIGN_AT, out=numbers[:, self._words :])
        bases = np.repeat((tops.astype(np.uint32) << _TOP_AT) - _BELOW_TOP, self._parts, axis=1)
        bases *= (numbers & _MAGNITUDE) != 0
        numbers += bases
        record = self._with_head(rows, FORMAT, self.size)
        record[:, self._tops_at :] = _bytes(numbers)
        return record, (tops <= _HIGHEST_TOP).all(axis=1)

    def _with_head(self, rows: Rows, form: int, size: int) -> Rows:
        """Return records of this format and size, in which nothing stands yet behind the names."""
        made = np.empty((len(rows), size), np.uint8)
        made[:, : self._tops_at] = rows[:, : self._tops_at]
        made[:, FORMAT_AT] = form
        return made


@lru_cache
def _remembered(lengths: bytes) -> _Packing | None:
    """Return how records with these lengths in their headers are packed; None where they cannot be."""
    name_n, version_n, *parts = struct.unpack("<BBII", lengths)
    if not any(parts) or any(part % FLOAT_BYTES for part in parts):
        return None
    return _Packing(HEADER.size + name_n + version_n, [part // FLOAT_BYTES for part in parts if part])


def _allocated(size: int) -> int:
    """Return what Redis' allocator, jemalloc, gives a value: there are four sizes to each power of two."""
    needed = size + _REDIS_BYTES
    spacing = 1 << max((needed - 1).bit_length() - 3, 4)
    return -(-needed // spacing) * spacing


def _words(rows: Rows) -> Words:
    """Return bytes as numbers of four each."""
    return np.ascontiguousarray(rows).view("<u4").astype(np.uint32, copy=False)


def _bytes(words: Words) -> Rows:
    return words.astype("<u4", copy=False).view(np.uint8)
