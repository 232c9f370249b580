"""Numbers in the midst of a message in MessagePack, at places that are known: taken out, and put in, side by side.

Those of a fixed length are meant: floats, tensors' data, and whole numbers that keep theirs. Whatever they are, a
message is read in the same way before them and behind.
"""

from collections.abc import Iterable, Sequence
from random import Random
from typing import Generic, NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

Bytes = NDArray[np.uint8]
Places = NDArray[np.intp]

ITS_OWN = 7
"""Bits of a whole number that is its own first byte."""
MAX_STEP = 2**53 - 1
_BITS = {1: ITS_OWN, 2: 8, 3: 16, 5: 32, 9: 64}
"""Of a whole number, by the bytes that it takes."""
_RANGES = {7: (1, 127), 8: (128, 255), 16: (256, 2**16 - 1), 32: (2**16, 2**32 - 1), 64: (2**32, MAX_STEP)}
"""Which step's numbers have so many bits."""
_LIMITS = np.array([least for least, _ in _RANGES.values()][1:], np.uint64)
TAIL = 8
"""Bytes of which the last may be a whole number: those of the longest."""
_STEP = b"\xa4step"
_LONGEST_PAUSE = 1023
_WORTH = 4
"""Uses that make up for the making."""
LONGEST = 128 * 2**10
"""Bytes of a message of which so much is known."""

_encode = msgspec.msgpack.Encoder().encode


def windows(content: Bytes, size: int) -> NDArray[np.void]:
    """Return so many bytes from each place of a message on. What is written there is written into the message."""
    return np.ndarray((len(content) - size + 1,), f"V{size}", content, strides=(1,))


def rows(found: NDArray[np.void]) -> Bytes:
    """Return windows as (windows, size) bytes."""
    return found.view(np.uint8).reshape(len(found), -1)


def as_windows(made: Bytes) -> NDArray[np.void]:
    """Undo `rows`."""
    return made.view(f"V{made.shape[1]}")[:, 0]


class StepNumbers:
    """Those of some steps, in a message: `ends` is where each ends, and `bits` how many it has there."""

    def __init__(self, ends: Sequence[int], bits: Sequence[int]) -> None:
        self.ends = ends
        self.bits = bits
        self._tails_at = np.array(ends, np.intp) - TAIL
        self._masks = np.array([2**each - 1 for each in bits], np.uint64)
        self._lengths = np.searchsorted(_LIMITS, self._masks, "right")

    def __len__(self) -> int:
        return len(self.bits)

    def taken(self, content: Bytes) -> NDArray[np.uint64]:
        """Return the numbers that a message has there."""
        return _tails(content)[self._tails_at].astype(np.uint64) & self._masks

    def fit(self, numbers: NDArray[np.uint64]) -> bool:
        """Return whether these numbers would be as long."""
        return np.array_equal(np.searchsorted(_LIMITS, numbers, "right"), self._lengths)

    def put(self, content: Bytes, numbers: NDArray[np.uint64]) -> None:
        """Put numbers that fit into a message."""
        tails = _tails(content)
        tails[self._tails_at] = tails[self._tails_at].astype(np.uint64) & ~self._masks | numbers

    def others(self, random: Random, numbers: Iterable[int]) -> NDArray[np.uint64]:
        """Return numbers that fit, at random, each another one than it was."""
        return np.array([_another(random, bits, old) for bits, old in zip(self.bits, numbers, strict=True)], np.uint64)


def _another(random: Random, bits: int, number: int) -> int:
    least, most = _RANGES[bits]
    return least + (number - least + random.randint(1, most - least)) % (most - least + 1)


def _tails(content: Bytes) -> NDArray[np.uint64]:
    """Return the whole numbers of `TAIL` bytes that begin in each place of a message."""
    return np.ndarray((len(content) - TAIL + 1,), ">u8", content, strides=(1,))


class FoundStep(NamedTuple):
    """Where a step's number ends in a message, and how many bits it has there."""

    end: int
    bits: int


def found_step(content: bytes, number: int, start: int, stop: int | None = None) -> FoundStep | None:
    """Look for a step's number in a message, between two places."""
    told = _STEP + _encode(number)
    at = content.find(told, start, stop)
    return None if at < 0 else FoundStep(at + len(told), _BITS[len(told) - len(_STEP)])


class Kept(Generic[T]):
    """The `latest` that was made of a message for those like it, if anything, and how often it has been of use.

    It is made anew after twice as many chances as the last time, if that was of little use.
    """

    def __init__(self) -> None:
        self.latest: T | None = None
        self.uses = 0
        self._pause = self._left = 0

    def is_to_be_made(self) -> bool:
        """Return whether to make it anew, this time."""
        if self.uses >= _WORTH:
            self._pause = self._left = 0
        if self._left:
            self._left -= 1
            return False
        self._pause = self._left = min(2 * self._pause + 1, _LONGEST_PAUSE)
        self.uses = 0
        return True
