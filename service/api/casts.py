"""Answers in MessagePack to the same sessions as before: the bytes of those, with other numbers put into them.

To encode the answers to a frame is a good part of what it costs, and all of them but the numbers of the steps and the
outputs' data is the same every time. A `Cast` is what `service.api.moulds` is for what is sent here.
"""

from collections.abc import Callable, Mapping
from random import Random
from typing import Self
from weakref import WeakKeyDictionary

import numpy as np

from service.api.windows import LONGEST, TAIL, Bytes, Kept, Places, StepNumbers, as_windows, found_step, windows
from service.core.columns import Floats
from service.core.roster import Roster
from service.frame import Answers

Encode = Callable[[Roster, Answers], bytes]
"""Encodes answers one after the other."""


class Cast:
    """See the module. Made by `of`."""

    def __init__(
        self, content: bytes, outputs: Mapping[str, Floats], data_at: list[Places], steps: StepNumbers
    ) -> None:
        self._shapes = _shapes(outputs)
        self._data_at = data_at
        self._steps = steps
        self._content = np.frombuffer(content, np.uint8).copy()
        for at, output in zip(data_at, outputs.values(), strict=True):  # whose they were need not be kept
            windows(self._content, _bytes(output).shape[1])[at] = as_windows(np.zeros_like(_bytes(output)))

    @classmethod
    def of(cls, roster: Roster, answers: Answers, encode: Encode) -> Self | None:
        """Make a cast of answers; None of what cannot be one.

        It is tried with other numbers, at random: what comes of them has to be what the encoder makes of them.
        """
        cast = cls._found(encode(roster, answers), answers)
        if cast is None:
            return None
        random = Random()  # noqa: S311  # nosec B311  # finds out, and guards nothing
        outputs = {
            name: np.array([random.uniform(-1, 1) for _ in range(output.size)], np.float32).reshape(output.shape)
            for name, output in answers.outputs.items()
        }
        others = Answers(answers.start, cast._steps.others(random, answers.steps).tolist(), outputs)
        return cast if cast.made(others) == encode(roster, others) else None

    def made(self, answers: Answers) -> bytes | None:
        """Return answers with these numbers, or None where it takes more than to put them in."""
        steps = np.array(answers.steps, np.uint64)
        if _shapes(answers.outputs) != self._shapes or not self._steps.fit(steps):
            return None
        made = self._content.copy()
        self._steps.put(made, steps)
        for at, output in zip(self._data_at, answers.outputs.values(), strict=True):
            data = _bytes(output)
            windows(made, data.shape[1])[at] = as_windows(data)
        return made.tobytes()

    @classmethod
    def _found(cls, content: bytes, answers: Answers) -> Self | None:
        """Look for the numbers of answers in them, those of each behind those of the one before."""
        data = [_bytes(output) for output in answers.outputs.values()]
        data_at: list[list[int]] = [[] for _ in data]
        ends, bits = [], []
        behind = 0
        for i, number in enumerate(answers.steps):
            step = found_step(content, number, behind)
            if step is None or step.end < TAIL:
                return None
            ends.append(step.end)
            bits.append(step.bits)
            behind = step.end
            for places, rows in zip(data_at, data, strict=True):
                if (at := content.find(rows[i].tobytes(), behind)) < 0:
                    return None
                places.append(at)
                behind = at + rows.shape[1]
        return cls(content, answers.outputs, [np.array(at, np.intp) for at in data_at], StepNumbers(ends, bits))


class Casts:
    """Those of rosters that come again, as long as these are remembered."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._kept: WeakKeyDictionary[Roster, Kept[Cast]] = WeakKeyDictionary()

    def answers(self, roster: Roster, answers: Answers) -> bytes:
        """Return answers, one of each session of a roster, encoded one after the other."""
        if not roster.comes_again:
            return self._encode(roster, answers)
        kept = self._kept.setdefault(roster, Kept())
        if kept.latest is not None and (made := kept.latest.made(answers)) is not None:
            kept.uses += 1
            return made
        made = self._encode(roster, answers)
        if len(made) <= LONGEST and kept.is_to_be_made():
            kept.latest = Cast.of(roster, answers, self._encode)
        return made


def _shapes(outputs: Mapping[str, Floats]) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, output.shape) for name, output in outputs.items()]


def _bytes(output: Floats) -> Bytes:
    return np.ascontiguousarray(output.reshape(len(output), -1), "<f4").view(np.uint8)
