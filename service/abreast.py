"""Single timesteps of distinct sessions, side by side: as columns they cost a fraction of what turns do.

Nearly every timestep can go this way. What cannot goes as a turn, see `service.planner`: chunks, several steps of a
session, numbers by name, a step that is not the next one or holds what is no number, a record that has had no timestep
yet. There it is told what is wrong with it, if anything is.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from service.core.cache import Place, RecordCache
from service.core.columns import Columns, Floats
from service.core.session import Result, SessionKey
from service.core.timestep import SURELY
from service.core.turn import Turn
from service.frame import Numbers, frames
from service.pending import Pending, StepBatch, StepTurn

FEWEST = 6
"""Timesteps from which on columns cost less than turns."""


class Home(Protocol):
    """Whose timesteps these are, one in each row, and who is told of the answers."""

    def rendered(self, start: int, steps: Sequence[int], outputs: Mapping[str, Floats]) -> Any:
        """Return what is to be told of the rows from `start` on: the steps that they are, and the outputs (rows, …)."""
        ...

    def answer(self, start: int, stop: int, rendered: Any) -> None:
        """Tell what `rendered` has made of some rows."""
        ...

    def step(self, i: int) -> Pending:
        """Return a timestep as one that goes its own way from now on."""
        ...


class Span(NamedTuple):
    """The rows `start` to `stop` (exclusive) of a home."""

    home: Home
    start: int
    stop: int


@dataclass(slots=True)
class Abreast:
    """Timesteps of one width. Row `i` of everything is about `keys[i]`; `spans`, one after the other, are theirs.

    `x` is (batch, features), and `numbers`, uint64, are the steps that the timesteps are to be, 0 for whatever is next.
    """

    keys: Sequence[SessionKey]
    x: Numbers
    numbers: NDArray[np.uint64]
    spans: Sequence[Span]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: slice) -> "Abreast":
        return Abreast(self.keys[rows], self.x[rows], self.numbers[rows], _cut(self.spans, rows.start, rows.stop))

    def pick(self, rows: Sequence[int]) -> "Abreast":
        """Return what is in some rows, which are in ascending order."""
        if len(rows) == len(self):
            return self
        return Abreast([self.keys[i] for i in rows], self.x[rows], self.numbers[rows], _picked(self.spans, rows))

    def turns(self, rows: Sequence[int]) -> list[StepTurn]:
        """Return timesteps as turns of their sessions, see `pick`."""
        steps = (home.step(i) for home, start, stop in _picked(self.spans, rows) for i in range(start, stop))
        return [Turn(self.keys[i], [step]) for i, step in zip(rows, steps, strict=True)]


def _cut(spans: Sequence[Span], start: int, stop: int) -> list[Span]:
    """Return what lies between two rows of spans that follow each other."""
    cut: list[Span] = []
    at = 0
    for home, first, last in spans:
        length = last - first
        if at < stop and at + length > start:
            cut.append(Span(home, first + max(start - at, 0), first + min(stop - at, length)))
        at += length
    return cut


def _picked(spans: Sequence[Span], rows: Sequence[int]) -> list[Span]:
    """Return what is in some rows, in ascending order, of spans that follow each other."""
    picked: list[Span] = []
    at = found = 0
    for home, first, last in spans:
        at += last - first
        while found < len(rows) and rows[found] < at:
            row = last - (at - rows[found])
            if picked and picked[-1].home is home and picked[-1].stop == row:
                picked[-1] = Span(home, picked[-1].start, row + 1)
            else:
                picked.append(Span(home, row, row + 1))
            found += 1
    return picked


class Singles:
    """Steps that were submitted by ones, of one timestep each. See `Home`."""

    def __init__(self, turns: Sequence[StepTurn]) -> None:
        self.keys = [turn.key for turn in turns]
        self._steps = [turn.steps[0] for turn in turns]

    def numbers(self) -> NDArray[np.uint64]:
        return np.array([step.timestep.step or 0 for step in self._steps], np.uint64)

    def rendered(self, start: int, steps: Sequence[int], outputs: Mapping[str, Floats]) -> Any:
        return [
            self._steps[start + row].rendered(Result(step, {name: output[row] for name, output in outputs.items()}))
            for row, step in enumerate(steps)
        ]

    def answer(self, start: int, stop: int, rendered: Any) -> None:
        for step, each in zip(self._steps[start:stop], rendered, strict=True):
            step.answer(each)

    def step(self, i: int) -> Pending:
        return self._steps[i]


class Sheet(NamedTuple):
    """Timesteps that come next, with good numbers, of sessions of one model: row `i` of all is about the same one.

    `place` is where the cache has their records.
    """

    abreast: Abreast
    columns: Columns
    place: Place

    def part(self, rows: slice) -> "Sheet":
        if rows == slice(0, len(self.abreast)):
            return self
        return Sheet(self.abreast[rows], self.columns.part(rows), self.place.part(rows))

    def pick(self, rows: Sequence[int]) -> "Sheet":
        """Return what is in some rows, which are in ascending order."""
        if len(rows) == len(self.abreast):
            return self
        return Sheet(self.abreast.pick(rows), self.columns.pick(rows), self.place.pick(rows))

    @property
    def x(self) -> Floats:
        """(batch, 1, features)"""
        return self.abreast.x.astype(np.float32, copy=False)[:, None]


def line_up(batch: StepBatch) -> tuple[list[Abreast], list[StepTurn]]:
    """Part a batch into what can go side by side, and turns."""
    if batch.sessions < FEWEST:
        return [], batch.turns + [turn for part in batch.parts for turn in part.turns()]
    by_width: defaultdict[int, list[Abreast]] = defaultdict(list)
    for frame, part in frames(batch):
        rows = slice(part.start, part.stop)
        abreast = Abreast(part.keys, frame.x[rows], frame.numbers[rows], [Span(frame, part.start, part.stop)])
        by_width[frame.x.shape[1]].append(abreast)
    singles, turns = _singles(batch.turns)
    for abreast in singles:
        by_width[abreast.x.shape[1]].append(abreast)
    lined: list[Abreast] = []
    for some in by_width.values():
        whole = _joined(some)
        if len(whole) < FEWEST:
            turns += whole.turns(range(len(whole)))
        else:
            lined.append(whole)
    return lined, turns


def _singles(turns: Iterable[StepTurn]) -> tuple[list[Abreast], list[StepTurn]]:
    """Put the turns of one timestep side by side, by width; return the others, too."""
    by_width: defaultdict[int, list[StepTurn]] = defaultdict(list)
    others: list[StepTurn] = []
    for turn in turns:
        step = turn.steps[0]
        values, _, _, every = step.timestep
        if len(turn.steps) > 1 or every or step.alone or not _is_row(values):
            others.append(turn)
        else:
            by_width[len(values)].append(turn)
    made: list[Abreast] = []
    for some in by_width.values():
        home = Singles(some)
        x = np.array([turn.steps[0].timestep.values for turn in some], np.float64)
        made.append(Abreast(home.keys, x, home.numbers(), [Span(home, 0, len(some))]))
    return made, others


def _is_row(values: object) -> bool:
    return type(values) is list and bool(values) and set(map(type, values)) == {float}


def _joined(some: Sequence[Abreast]) -> Abreast:
    if len(some) == 1:
        return some[0]
    return Abreast(
        [key for each in some for key in each.keys],
        np.concatenate([each.x for each in some]),
        np.concatenate([each.numbers for each in some]),
        [span for each in some for span in each.spans],
    )


def sheets(abreast: Abreast, cache: RecordCache) -> tuple[list[Sheet], list[int]]:
    """Put timesteps beside the records of their sessions that are in a cache.

    Returns those that can go side by side, and the rows of the others, in their order.
    """
    found, others = cache.find(abreast.keys)
    made: list[Sheet] = []
    for at, place in found:
        layout = place.slab.layout
        sheet = Sheet(abreast.pick(at), Columns.of(layout, place.slab.rows[place.rows]), place)
        good = _good(sheet.abreast, sheet.columns)
        if good is not None:
            others += [i for i, fine in zip(at, good, strict=True) if not fine]
            fine = np.flatnonzero(good).tolist()
            if not fine:
                continue
            sheet = sheet.pick(fine)
        made.append(sheet)
    return made, sorted(others)


def _good(abreast: Abreast, columns: Columns) -> NDArray[np.bool_] | None:
    """Return which rows are numbers that their model takes, and come next; None where all are."""
    x, numbers = abreast.x, abreast.numbers
    if x.shape[1] != columns.layout.spec.width:
        return np.zeros(len(x), bool)
    size = np.abs(x)
    due = None if not numbers.any() else (numbers == 0) | (numbers == columns.step + np.uint64(1))
    # Written so that NaN, which compares as false with everything, is not good.
    if size.max() < SURELY and (due is None or due.all()):
        return None
    good: NDArray[np.bool_] = np.all(size < SURELY, axis=1)
    return good if due is None else good & due
