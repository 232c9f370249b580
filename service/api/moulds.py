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
from weakref import WeakKeyDictionary, ref

import msgspec
import numpy as np
from numpy.typing import NDArray

from service.api.windows import (
    ITS_OWN,
    LONGEST,
    MAX_STEP,
    TAIL,
    Bytes,
    Kept,
    Places,
    StepNumbers,
    as_windows,
    found_step,
    rows,
    windows,
)
from service.core.errors import InvalidRequest
from service.core.roster import Roster
from service.frame import Numbers

_GROUPS = 2
"""Rosters whose messages a socket knows again."""
_FLOAT = 0xCB  # and 8 bytes
_ITS_OWN_MARK = 0x80  # is not set in a whole number that is its own first byte

_items = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


class Timesteps(NamedTuple):
    """One timestep for each of the sessions of a roster, see `service.frame.Frame`."""

    roster: Roster
    x: Numbers
    numbers: NDArray[np.uint64]


Decode = Callable[[bytes], Timesteps | None]
"""Reads a message as ever. Raises `InvalidRequest`."""


class Mould:
    """See the module. Made by `of`."""

    def __init__(self, content: bytes, like: Timesteps, x_at: Places, numbers: StepNumbers) -> None:
        """`x_at` is where the numbers of each `x` begin; `numbers` are none where the steps have none."""
        self._sessions, self._width = like.x.shape
        self._tensors = like.x.dtype == np.float32
        self._x_at, self._numbers = x_at, numbers
        self._x_size = _cast(like.x).shape[1]
        self._kept = np.full(len(content), 0xFF, np.uint8)
        windows(self._kept, self._x_size)[x_at] = as_windows(_marks(like.x))
        for end, bits in zip(numbers.ends, numbers.bits, strict=True):
            self._kept[end - bits // 8 : end] = 0
            if bits == ITS_OWN:
                self._kept[end - 1] = _ITS_OWN_MARK
        self._content = np.frombuffer(content, np.uint8) & self._kept

    @classmethod
    def of(cls, content: bytes, asked: Timesteps, decode: Decode) -> Self | None:
        """Make a mould of a message that asks for this; None of one that is not made of what a mould knows.

        The decoder is asked to read one with other numbers, at random: where it finds these, and all else as it was, it
        has read each of them in the place where the mould has it. A decoder reads every byte once, and goes on in the
        same way behind a number of a fixed length, whichever it is: so any others will do as well.
        """
        mould = cls._found(content, asked)
        if mould is None:
            return None
        other = mould._filled(content, asked, Random())  # noqa: S311  # nosec B311  # finds out, and guards nothing
        mine = mould.read(other, asked.roster)
        try:
            decoded = decode(other)
        except InvalidRequest:  # the numbers are elsewhere, and something else has been overwritten
            return None
        return mould if mine is not None and decoded is not None and _are_same(mine, decoded) else None

    def read(self, content: bytes, roster: Roster) -> Timesteps | None:
        """Return what a message asks for, for the sessions of a roster, or None where it was not cast in this."""
        if len(content) != len(self._content):
            return None
        found = np.frombuffer(content, np.uint8)
        if (found & self._kept != self._content).any():
            return None
        numbers = self._numbers.taken(found) if self._numbers else np.zeros(self._sessions, np.uint64)
        if self._numbers and not 0 < numbers.min() <= numbers.max() <= MAX_STEP:
            return None
        cast = rows(windows(found, self._x_size)[self._x_at])
        return Timesteps(roster, _tensors_in(cast) if self._tensors else _floats_in(cast, self._width), numbers)

    @classmethod
    def _found(cls, content: bytes, asked: Timesteps) -> Self | None:
        """Look for the numbers of a message, in each item those of its session."""
        items = _items(content)
        numbers = asked.numbers.tolist()
        numbered = any(numbers)
        at = len(content) - sum(map(len, items))  # behind the head of the array
        x_at, ends, bits = [], [], []
        for item, x, number in zip(items, _cast(asked.x), numbers, strict=True):
            stop = at + len(item)
            x_at.append(content.find(x.tobytes(), at, stop))
            if x_at[-1] < 0:
                return None
            if numbered:
                step = found_step(content, number, at, stop)
                if step is None or step.end < TAIL:
                    return None
                ends.append(step.end)
                bits.append(step.bits)
            at = stop
        return cls(content, asked, np.array(x_at, np.intp), StepNumbers(ends, bits))

    def _filled(self, content: bytes, asked: Timesteps, random: Random) -> bytes:
        """Return a message with other numbers in it."""
        made = np.frombuffer(content, np.uint8).copy()
        drawn = np.array([random.uniform(-1, 1) for _ in range(asked.x.size)]).reshape(asked.x.shape)
        x: Numbers = drawn.astype(np.float32) if self._tensors else drawn
        windows(made, self._x_size)[self._x_at] = as_windows(_cast(x))
        if self._numbers:
            self._numbers.put(made, self._numbers.others(random, asked.numbers.tolist()))
        return made.tobytes()


class Moulds:
    """Those of the rosters that come again, as long as these are remembered; the latest one of each."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[Roster, Kept[Mould]] = WeakKeyDictionary()

    def read(self, content: bytes, roster: Roster) -> Timesteps | None:
        """Return what a message asks for, where it was cast in a mould of this roster."""
        kept = self._kept.get(roster)
        if kept is None or kept.latest is None or (asked := kept.latest.read(content, roster)) is None:
            return None
        kept.uses += 1
        return asked

    def learn(self, content: bytes, asked: Timesteps, decode: Decode) -> None:
        """Make a mould of a message that was cast in none, if others like it are to be expected."""
        if not asked.roster.comes_again or len(content) > LONGEST:
            return
        kept = self._kept.setdefault(asked.roster, Kept())
        if kept.is_to_be_made():
            kept.latest = Mould.of(content, asked, decode)


class Reader:
    """Reads the messages of one socket, those that it knows by `moulds`. It holds none of what these keep."""

    def __init__(self, moulds: Moulds, decode: Decode) -> None:
        self._moulds = moulds
        self._decode = decode
        self._latest: deque[ref[Roster]] = deque(maxlen=_GROUPS)

    def known(self, content: bytes) -> Timesteps | None:
        """Return what a message asks for, if it is like one of the last."""
        for latest in self._latest:
            if (roster := latest()) is not None and (asked := self._moulds.read(content, roster)) is not None:
                roster.in_use = True
                return asked
        return None

    def learn(self, content: bytes, asked: Timesteps) -> None:
        """Say what a message asks for that was not known."""
        if all(latest() is not asked.roster for latest in self._latest):
            self._latest.append(ref(asked.roster))
        self._moulds.learn(content, asked, self._decode)


def _are_same(one: Timesteps, other: Timesteps) -> bool:
    return (
        one.roster is other.roster
        and one.x.dtype == other.x.dtype
        and np.array_equal(one.x, other.x)
        and np.array_equal(one.numbers, other.numbers)
    )


def _cast(x: Numbers) -> Bytes:
    """Return (sessions, bytes): how a message has the numbers of each `x`, in a tensor if they are float32."""
    if x.dtype == np.float32:
        return np.ascontiguousarray(x, "<f4").view(np.uint8)
    made = np.full((*x.shape, 1 + 8), _FLOAT, np.uint8)
    made[..., 1:] = np.ascontiguousarray(x, ">f8").view(np.uint8).reshape(*x.shape, 8)
    return made.reshape(len(x), -1)


def _tensors_in(cast: Bytes) -> NDArray[np.float32]:
    return cast.view("<f4").astype(np.float32, copy=False)


def _floats_in(cast: Bytes, width: int) -> NDArray[np.float64]:
    return np.ascontiguousarray(cast.reshape(-1, width, 1 + 8)[..., 1:]).view(">f8")[..., 0].astype(np.float64)


def _marks(x: Numbers) -> Bytes:
    """Return for each byte of a row of `_cast` 255 where it is none of a number's, but tells that there is one."""
    each = np.array([0] * 4 if x.dtype == np.float32 else [0xFF] + [0] * 8, np.uint8)
    return np.tile(each, (1, x.shape[1]))
