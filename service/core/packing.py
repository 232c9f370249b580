"""Records as Redis keeps them: packed without losing a bit, where that takes less memory.

A float32 has 32 bits, of which the numbers of one session need fewer: their exponents lie close together. Packed, a
number has 29. Of eleven numbers, ten stay where they are, each in a word of 32 bits; the eleventh is cut into pieces of
3 bits, which fill the words of the others. As in `service.core.record`, all is little-endian:

============  =====================================================================================================
bytes         what
============  =====================================================================================================
as there      header and names, but format 2; the lengths are those of the record as it was
1 per part    for the states and for the outputs, but for none that are empty: bits 0 to 6 top, bit 7 zeros
4 per word    bits 0 to 27 magnitude, bits 28 to 30 a piece of another number, bit 31 sign
============  =====================================================================================================

A magnitude is a float32 without its sign, read as an integer, less (top - 15) * 2^24: there is room for numbers whose
uppermost 7 bits are at most `top` and at least 15 less, a factor of 2^30. Where the bit `zeros` is set, 0 is the number
zero. A record with numbers that find no room stays as it is. Of F numbers, states before outputs, the last F // 11 are
cut, turned left by one bit so that the sign is the lowest: the lowest pieces of all of them go into the first F // 11
words, the next into those behind, and so on.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from service.core.columns import Rows
from service.core.record import FLOAT_BYTES, FORMAT, FORMAT_AT, HEADER, LENGTHS_SLICE, PACKED

Mask = NDArray[np.bool_]
Words = NDArray[np.uint32]

PACKED_FORM = bytes([PACKED])
"""Stands in a packed record at `FORMAT_AT`."""
_PIECES = 10
_LANE = 32
_HIGHEST_TOP, _ZEROS = 127, 128
_REDIS_BYTES = 6
"""What Redis puts around a string of 256 bytes to 64 KiB: its header, and a zero behind it."""


def _word(n: int) -> Words:
    """Return a number in the form that numpy takes fastest, which shows where records come singly."""
    return np.array(n, np.uint32)


_MAGNITUDE, _SPARE, _OWN, _UNSIGNED = (_word(n) for n in (0x0FFF_FFFF, 0x7000_0000, 0x8FFF_FFFF, 0x7FFF_FFFF))
_ONE, _TOPS_BELOW, _TOP_AT, _SIGN_AT = (_word(n) for n in (1, 15, 24, 31))
_TO_SPARE = np.arange(28, -2, -3, dtype=np.uint32)
"""By how many bits each piece of a number is moved to where it is kept."""
ALL = np.array([True])
"""A mask: all of them."""


def packing_of(rows: Rows, *, packed: bool = False) -> "Packing | None":
    """Return how records of one kind, plain or packed ones, are packed; None where that gains nothing."""
    return _remembered(rows[0, LENGTHS_SLICE].tobytes(), rows.shape[1], packed)


def packing_of_one(record: bytes) -> "Packing | None":
    """Return how a plain record is packed; None where that gains nothing, or it is none."""
    return _remembered(record[LENGTHS_SLICE], len(record), False) if len(record) >= HEADER.size else None


class Packing:
    """How records of one kind are packed. `gains` tells whether that takes less memory.

    `parts` are the lengths of what is there of states and outputs, in numbers.

    Records of a kind are much alike, and looking for their tops would take a third of the time. So the tops of those
    last looked at are tried on the next, and what has no room with them shows in the spare bits.
    """

    def __init__(self, tops_at: int, parts: Sequence[int]) -> None:
        numbers = sum(parts)
        self._parts = parts
        self._starts = np.cumsum([0, *parts[:-1]])
        self._cut = numbers // (1 + _PIECES)
        self._words = numbers - self._cut
        self._carrying = _PIECES * self._cut
        self._tops_at, self._words_at = tops_at, tops_at + len(parts)
        self._expect(np.full(len(parts), _HIGHEST_TOP, np.uint32))
        self._size = tops_at + FLOAT_BYTES * numbers
        self.packed_size = self._words_at + FLOAT_BYTES * self._words
        self.gains = _allocated(self.packed_size) < _allocated(self._size)
        self._to_spare = np.repeat(_TO_SPARE, self._cut)
        self._all_spare = _lanes(_SPARE, numbers)
        self._cut_spare, self._cut_ones = _lanes(_SPARE, self._cut), _lanes(_ONE, self._cut)

    def pack(self, rows: Rows, packed: Rows) -> Mask:
        """Pack plain records into the rows of `packed`, (batch, `packed_size`), and return which of them fitted."""
        words, fitted = _words(rows[:, self._tops_at :].copy()), ALL
        tops, bases = self._expected
        words -= bases
        # What is taken away is added again, modulo 2^32: any number comes back that leaves the spare bits empty.
        if np.bitwise_or.reduce(words, axis=None) & _SPARE:
            tops, words, fitted = self._fit(_words(rows[:, self._tops_at :]))
        cut = words[:, self._words :]
        pieces = np.tile((cut << _ONE) | (cut >> _SIGN_AT), _PIECES)
        pieces <<= self._to_spare
        pieces &= _SPARE
        carrying = words[:, : self._carrying]
        np.bitwise_or(carrying, pieces, out=carrying)
        self._copy_head(rows, packed, PACKED)
        packed[:, self._tops_at : self._words_at] = tops
        packed[:, self._words_at :] = _bytes(words)[:, : FLOAT_BYTES * self._words]
        return fitted

    def pack_one(self, record: bytes) -> bytes | None:
        """Pack a record with the expected tops, as `pack` does, or return None where its numbers have no room in them.

        All its words are one whole number here, 32 bits for each: a twentieth of the calls, for who comes alone. A
        word that is less than what is taken from it borrows from the next one, and shows that in its spare bits.
        """
        if self._base is None:
            return None
        numbers = int.from_bytes(record[self._tops_at :], "little") - self._base
        if numbers < 0 or numbers & self._all_spare:
            return None
        bits = _LANE * self._words
        cut = numbers >> bits
        words = numbers ^ (cut << bits)
        signs = (cut >> 31) & self._cut_ones
        turned = ((cut ^ (signs << 31)) << 1) | signs
        for i in range(_PIECES):
            words |= ((turned << (28 - 3 * i)) & self._cut_spare) << (_LANE * self._cut * i)
        head = record[:FORMAT_AT] + PACKED_FORM + record[FORMAT_AT + 1 : self._tops_at] + self._expected_tops
        return head + words.to_bytes(FLOAT_BYTES * self._words, "little")

    def unpack(self, rows: Rows) -> Rows:
        words = _words(rows[:, self._words_at :])
        tops = rows[:, self._tops_at : self._words_at]
        pieces = words[:, : self._carrying].reshape(-1, _PIECES, self._cut) & _SPARE
        pieces >>= _TO_SPARE[:, None]
        cut = np.bitwise_or.reduce(pieces, axis=1)
        numbers = np.empty((len(rows), self._words + self._cut), np.uint32)
        np.bitwise_and(words, _OWN, out=numbers[:, : self._words])
        np.bitwise_or(cut >> _ONE, cut << _SIGN_AT, out=numbers[:, self._words :])
        bases = self._bases((tops & _HIGHEST_TOP).astype(np.uint32))
        if (with_zeros := tops >= _ZEROS).any():
            bases[((numbers & _MAGNITUDE) == 0) & np.repeat(with_zeros, self._parts, axis=1)] = 0
        numbers += bases
        record = np.empty((len(rows), self._size), np.uint8)
        self._copy_head(rows, record, FORMAT)
        record[:, self._tops_at :] = _bytes(numbers)
        return record

    def _fit(self, numbers: Words) -> tuple[Words, Words, Mask]:
        """Return the tops that are each record's own, its words, and whether all of its numbers have room in them."""
        unsigned = numbers & _UNSIGNED
        tops = np.maximum.reduceat(unsigned, self._starts, axis=1) >> _TOP_AT
        self._expect(tops.max(axis=0))
        words = numbers - self._bases(tops)
        zero = unsigned == 0
        words[zero] = numbers[zero]
        no_room = ((words & _SPARE) != 0) | ((words & _MAGNITUDE) == 0)
        return tops | _word(_ZEROS), words, ~(no_room & ~zero).any(axis=1)

    def _expect(self, tops: Words) -> None:
        bases = self._bases(tops)
        self._expected = tops, bases
        self._expected_tops = tops.astype(np.uint8).tobytes()
        # None where a part of it is below zero.
        self._base = int.from_bytes(_bytes(bases).tobytes(), "little") if (tops >= _TOPS_BELOW).all() else None

    def _bases(self, tops: Words) -> Words:
        """Return for each number what is taken from it; below zero, it wraps round as does what it is taken from."""
        return np.repeat((tops - _TOPS_BELOW) << _TOP_AT, self._parts, axis=-1)

    def _copy_head(self, rows: Rows, made: Rows, form: int) -> None:
        """Write all that stands before the numbers, for records of this format."""
        made[:, : self._tops_at] = rows[:, : self._tops_at]
        made[:, FORMAT_AT] = form


@lru_cache
def _remembered(lengths: bytes, size: int, packed: bool) -> Packing | None:
    """Return how records of this size with these lengths in their headers are packed; None where that gains nothing, or
    they cannot be."""
    name_n, version_n, *in_bytes = struct.unpack("<BBII", lengths)
    parts = [part // FLOAT_BYTES for part in in_bytes if part]
    numbers = sum(parts)
    floats_at = HEADER.size + name_n + version_n
    # Before anything is made of them: damaged lengths may be those of gigabytes.
    right = floats_at + FLOAT_BYTES * numbers
    if packed:
        right += len(parts) - FLOAT_BYTES * (numbers // (1 + _PIECES))
    if not parts or size != right or any(part % FLOAT_BYTES for part in in_bytes):
        return None
    packing = Packing(floats_at, parts)
    return packing if packing.gains else None


def _allocated(size: int) -> int:
    """Return what Redis' allocator, jemalloc, gives a value: it has four sizes to each doubling."""
    needed = size + _REDIS_BYTES
    spacing = 1 << max((needed - 1).bit_length() - 3, 4)
    return -(-needed // spacing) * spacing


def _lanes(word: Words, count: int) -> int:
    """Return a word so many times, as one whole number."""
    return int.from_bytes(_bytes(np.full(count, word)).tobytes(), "little")


def _words(rows: Rows) -> Words:
    return np.ascontiguousarray(rows).view("<u4").astype(np.uint32, copy=False)


def _bytes(words: Words) -> Rows:
    return words.astype("<u4", copy=False).view(np.uint8)
