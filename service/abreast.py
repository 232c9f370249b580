"""Single timesteps of distinct sessions, side by side: as columns they cost a fraction of what turns do.

Nearly every timestep can go this way. What cannot goes as a turn, see `service.planner`: chunks, several steps of a
session, numbers by name, a step that is not the next one or holds what is no number, a record that has had no timestep
yet. There it is told what is wrong with it, if anything is.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from service.core.columns import Columns, Floats, Layout
from service.core.session import Result, SessionKey
from service.core.timestep import MAX_ABS
from service.core.turn import Turn
from service.frame import Seat, frames
from service.pending import Pending, StepBatch, StepTurn

FEWEST = 6
"""Timesteps from which on columns cost less than turns."""

_SURELY = 0.99 * MAX_ABS
"""A number below this is believed, however it is rounded to float32."""


Held = tuple[bytes, Layout]
"""A record, and where things stand in it."""


class Home(Protocol):
    """Where the answer to a timestep goes."""

    def answer(self, result: Result) -> None: ...

    def step(self) -> Pending:
        """Return the timestep as one that goes its own way from now on."""
        ...


@dataclass(slots=True)
class Abreast:
    """Timesteps, one for each of `keys`. Row `i` of each list is about `keys[i]`.

    `values` are numbers as they were sent, `numbers` the steps that they are to be, 0 for whatever is next.
    """

    keys: list[SessionKey] = field(default_factory=list)
    values: list[Sequence[float]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    homes: list[Home] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: slice) -> "Abreast":
        return Abreast(self.keys[rows], self.values[rows], self.numbers[rows], self.homes[rows])

    def pick(self, rows: Iterable[int]) -> "Abreast":
        picked = Abreast()
        for i in rows:
            picked.add(self.keys[i], self.values[i], self.numbers[i], self.homes[i])
        return picked

    def add(self, key: SessionKey, values: Sequence[float], number: int, home: Home) -> None:
        self.keys.append(key)
        self.values.append(values)
        self.numbers.append(number)
        self.homes.append(home)

    def turns(self, rows: Iterable[int]) -> list[StepTurn]:
        """Return timesteps as turns of their sessions."""
        return [Turn(self.keys[i], [self.homes[i].step()]) for i in rows]


class Sheet(NamedTuple):
    """Timesteps that come next, with good numbers, of sessions of one model. Row `i` of all is about the same session.

    `records` are those that the sessions have now, `columns` is the same, and `x` is (batch, 1, features), float32.
    """

    layout: Layout
    abreast: Abreast
    records: Sequence[bytes]
    columns: Columns
    x: Floats

    def pick(self, rows: Sequence[int]) -> "Sheet":
        records = [self.records[i] for i in rows]
        return Sheet(self.layout, self.abreast.pick(rows), records, Columns(self.layout, records), self.x[rows])


def line_up(batch: StepBatch) -> tuple[Abreast, list[StepTurn]]:
    """Part a batch into what can go side by side, and turns."""
    abreast = Abreast()
    turns: list[StepTurn] = []
    for turn in batch.turns:
        step = turn.steps[0]
        values, _, number, every = step.timestep
        if len(turn.steps) > 1 or every or step.alone or not _is_row(values):
            turns.append(turn)
        else:
            abreast.add(turn.key, cast("Sequence[float]", values), number or 0, step)
    for frame, part in frames(batch):
        rows = slice(part.start, part.stop)
        abreast.keys += part.keys
        abreast.values += frame.values[rows]
        abreast.numbers += frame.numbers[rows]
        abreast.homes += map(Seat, repeat(frame), range(part.start, part.stop))
    if len(abreast) < FEWEST:
        return Abreast(), turns + abreast.turns(range(len(abreast)))
    return abreast, turns


def _is_row(values: object) -> bool:
    return type(values) is list and bool(values) and type(values[0]) is float


def sheets(abreast: Abreast, held: Sequence[Held | None]) -> tuple[list[Sheet], list[int]]:
    """Put timesteps beside what is held of their sessions, None where that is nothing.

    Returns those that can go side by side, and the rows of the others, in their order.
    """
    rows_of: defaultdict[Layout, list[int]] = defaultdict(list)
    others: list[int] = []
    for i, each in enumerate(held):
        if each is not None and len(each[0]) == each[1].size:
            rows_of[each[1]].append(i)
        else:
            others.append(i)
    made: list[Sheet] = []
    for layout, rows in rows_of.items():
        some = abreast if len(rows) == len(abreast) else abreast.pick(rows)
        records = [each[0] for i in rows if (each := held[i]) is not None]
        sheet, left = _sheet(layout, some, records)
        made += sheet
        others += [rows[i] for i in left]
    return made, sorted(others)


def _sheet(layout: Layout, abreast: Abreast, records: Sequence[bytes]) -> tuple[list[Sheet], list[int]]:
    x, good = _numbers(abreast.values, layout.spec.width)
    columns = Columns(layout, records)
    numbers = np.array(abreast.numbers, np.uint64)
    good &= (numbers == columns.step + np.uint64(1)) | (numbers == 0)
    if good.all():
        return [Sheet(layout, abreast, records, columns, x[:, None])], []
    rows, left = np.flatnonzero(good).tolist(), np.flatnonzero(~good).tolist()
    if not rows:
        return [], left
    return _sheet(layout, abreast.pick(rows), [records[i] for i in rows])[0], left


def _numbers(values: Sequence[Sequence[float]], width: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Return rows of numbers, (batch, `width`), and which of them are good."""
    try:
        x = np.array(values, np.float64)
    except (TypeError, ValueError):  # of different widths, most likely
        x = np.empty(0)
    if x.shape != (len(values), width):
        x = np.full((len(values), width), np.nan)
        for i, row in enumerate(values):
            if len(row) == width and all(type(number) is float for number in row):
                x[i] = row
    # Written so that NaN, which compares as false with everything, is not.
    good: NDArray[np.bool_] = np.all(np.abs(x) < _SURELY, axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        return x.astype(np.float32), good
