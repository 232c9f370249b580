"""Messages in MessagePack that come again with other numbers: read without being decoded.

What a gateway sends differs from what it sent before in the numbers of its timesteps, and in nothing else: names,
shapes and all that is around them are the same bytes in the same places. A `Mould` is made of such a message. It tells
whether another one was cast in it, by comparing all but the numbers, and takes these out, at a fraction of a decoder's
cost.
"""

from collections import deque
from collections.abc import Callable
from random import Random
from typing import NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from service.api.windows import (
    ITS_OWN,
    MAX_STEP,
    TAIL,
    Bytes,
    Places,
    StepNumbers,
    as_windows,
    found_step,
    rows,
    windows,
)
from service.core.roster import Roster
from service.frame import Numbers

_LONGEST = 128 * 2**10
"""Bytes of a message of which a mould is made, which keeps twice as many."""
_MOST = 2
"""Moulds of one socket."""
_FAILURES = 3
"""Moulds in a row that were of no use, after which no more are made for a socket."""
_FLOAT = 0xCB  # and 8 bytes
_ITS_OWN_MARK = 0x80  # is not set in a whole number that is its own first byte

_items = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


class Timesteps(NamedTuple):
    """One timestep for each of the sessions of a roster, see `service.frame.Frame`."""

    roster: Roster
    x: Numbers
    numbers: NDArray[np.uint64]


class Mould:
    """See the module. Made by `of`. `uses` counts the messages that were cast in it."""

    def __init__(self, content: bytes, like: Timesteps, x_at: Places, numbers: StepNumbers) -> None:
        """`x_at` is where the numbers of each `x` begin; `numbers` are none where the steps have none."""
        self.uses = 0
        self._like = like
        self._x_at, self._numbers = x_at, numbers
        self._content = np.frombuffer(content, np.uint8)
        self._x_size = _cast(like.x).shape[1]
        self._kept = np.full(len(content), 0xFF, np.uint8)
        windows(self._kept, self._x_size)[x_at] = as_windows(_marks(like.x))
        for end, bits in zip(numbers.ends, numbers.bits, strict=True):
            self._kept[end - bits // 8 : end] = 0
            if bits == ITS_OWN:
                self._kept[end - 1] = _ITS_OWN_MARK

    @classmethod
    def of(cls, content: bytes, asked: Timesteps, decode: Callable[[bytes], Timesteps | None]) -> Self | None:
        """Make a mould of a message that asks for this; None of one that is not made of what a mould knows.

        `decode` reads a message as ever. It is asked to read one with other numbers, at random: where it finds these,
        and all else as it was, it has read each of them in the place where the mould has it. A decoder reads every
        byte once, and goes on in the same way behind a number of a fixed length, whichever it is: so any others will
        do as well.
        """
        mould = cls._found(content, asked)
        if mould is None:
            return None
        probe = mould._with_others(Random())  # noqa: S311  # nosec B311  # finds out, and guards nothing
        mine, decoded = mould.read(probe), decode(probe)
        mould.uses = 0
        if mine is None or decoded is None or mine.roster is not decoded.roster:
            return None
        alike = mine.x.dtype == decoded.x.dtype and np.array_equal(mine.x, decoded.x)
        return mould if alike and np.array_equal(mine.numbers, decoded.numbers) else None

    def read(self, content: bytes) -> Timesteps | None:
        """Return what a message asks for, or None where it was not cast in this."""
        if len(content) != len(self._content):
            return None
        found = np.frombuffer(content, np.uint8)
        if ((found ^ self._content) & self._kept).any():
            return None
        roster, x, numbers = self._like
        if self._numbers:
            numbers = self._numbers.taken(found)
            if not 0 < numbers.min() <= numbers.max() <= MAX_STEP:
                return None
        self.uses += 1
        return Timesteps(roster, _taken(rows(windows(found, self._x_size)[self._x_at]), x), numbers)

    @classmethod
    def _found(cls, content: bytes, asked: Timesteps) -> Self | None:
        """Look for the numbers of a message in it."""
        items = _items(content)
        numbers = asked.numbers.tolist()
        numbered = any(numbers)
        at = len(content) - sum(map(len, items))  # behind the head of the array
        x_at, ends, bits = [], [], []
        for item, x, number in zip(items, _cast(asked.x), numbers, strict=True):
            x_at.append(content.find(x.tobytes(), at))
            if x_at[-1] < 0:
                return None
            if numbered:
                step = found_step(content, number, at)
                if step is None or step.end < TAIL:
                    return None
                ends.append(step.end)
                bits.append(step.bits)
            at += len(item)
        return cls(content, asked, np.array(x_at, np.intp), StepNumbers(ends, bits))

    def _with_others(self, random: Random) -> bytes:
        """Return the message with other numbers in it."""
        made = self._content.copy()
        like: Numbers = self._like.x
        x: Numbers = np.empty_like(like)
        x[...] = np.array([random.uniform(-1, 1) for _ in range(like.size)]).reshape(like.shape)
        windows(made, self._x_size)[self._x_at] = as_windows(_cast(x))
        if self._numbers:
            self._numbers.put(made, self._numbers.others(random))
        return made.tobytes()


class Moulds:
    """Those of one socket: made of messages that came for the same sessions as one of the last before them."""

    def __init__(self) -> None:
        self._moulds: list[Mould] = []  # the latest is the first
        self._before: deque[Roster] = deque(maxlen=_MOST)
        self._failures = 0

    def read(self, content: bytes | str) -> Timesteps | None:
        """Return what a message asks for, where it was cast in one of the moulds."""
        if isinstance(content, bytes):
            for mould in self._moulds:
                if (found := mould.read(content)) is not None:
                    return found
        return None

    def learn(self, content: bytes | str, asked: Timesteps, decode: Callable[[bytes], Timesteps | None]) -> None:
        """Make a mould of a message that was cast in none, if another one like it is to be expected."""
        again = asked.roster in self._before
        self._before.append(asked.roster)
        if not (again and isinstance(content, bytes) and len(content) <= _LONGEST) or self._failures >= _FAILURES:
            return
        mould = Mould.of(content, asked, decode)
        if mould is None:
            self._failures += 1
            return
        self._moulds.insert(0, mould)
        if len(self._moulds) > _MOST:
            self._failures = 0 if self._moulds.pop().uses else self._failures + 1


def _cast(x: Numbers) -> Bytes:
    """Return (sessions, bytes): how a message has the numbers of each `x`, in a tensor if they are float32."""
    if x.dtype == np.float32:
        return np.ascontiguousarray(x, "<f4").view(np.uint8)
    made = np.full((*x.shape, 1 + 8), _FLOAT, np.uint8)
    made[..., 1:] = np.ascontiguousarray(x, ">f8").view(np.uint8).reshape(*x.shape, 8)
    return made.reshape(len(x), -1)


def _taken(cast: Bytes, like: Numbers) -> Numbers:
    """Undo `_cast`."""
    if like.dtype == np.float32:
        return cast.view("<f4").astype(np.float32, copy=False)
    return np.ascontiguousarray(cast.reshape(*like.shape, 1 + 8)[..., 1:]).view(">f8")[..., 0].astype(np.float64)


def _marks(x: Numbers) -> Bytes:
    """Return for each byte of a row of `_cast` 255 where it is none of a number's, but tells that there is one."""
    each = np.array([0] * 4 if x.dtype == np.float32 else [0xFF] + [0] * 8, np.uint8)
    return np.tile(each, (1, x.shape[1]))
