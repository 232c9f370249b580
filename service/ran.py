"""Timesteps that were run and are to be written, before anybody is told."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from service.abreast import Abreast
from service.core.columns import Columns, Floats, Layout, Rows
from service.core.errors import ConveyorError
from service.core.plan import Window
from service.core.ports import Observer
from service.core.session import Result
from service.core.timestep import named
from service.core.writes import Writes
from service.pending import Run, StepTurn, refuse


class Ran(Protocol):
    """What a run has made of some sessions of one model: `writes[i]` is that of what `turn(i)` is the turn of."""

    @property
    def layout(self) -> Layout: ...

    @property
    def timesteps(self) -> int:
        """How many of each session."""
        ...

    @property
    def writes(self) -> Writes: ...

    def turn(self, i: int) -> StepTurn: ...

    def answer(self, rows: Sequence[int], observer: Observer) -> None:
        """Tell what has been written."""
        ...


class RanTurns:
    """Turns of one length. See `Ran`.

    `records` are those that are to be written in the place of those that `columns` was made of. Row `i` of all of it,
    and of the outputs, (batch, time, …), is about `runs[i]`.
    """

    def __init__(self, columns: Columns, runs: Sequence[Run], records: Rows, outputs: Floats) -> None:
        self.layout = columns.layout
        self.timesteps = runs[0].plan.length
        self.writes = Writes([run.turn.key for run in runs], columns.version, records)
        self._runs = runs
        self._before: Sequence[int] = columns.step.tolist()
        self._outputs = named(columns.layout.spec, outputs)

    def turn(self, i: int) -> StepTurn:
        return self._runs[i].turn

    def answer(self, rows: Sequence[int], observer: Observer) -> None:
        for i in rows:
            turn, plan, before = self._runs[i].turn, self._runs[i].plan, self._before[i]
            for step, outcome in zip(turn.steps, plan.outcomes, strict=True):
                if isinstance(outcome, Window):
                    window = slice(outcome.start, outcome.stop) if step.timestep.every else outcome.stop - 1
                    found = {name: output[i, window] for name, output in self._outputs.items()}
                    step.answer(Result(before + outcome.stop, found, outcome.replayed))
                elif isinstance(outcome, ConveyorError):
                    refuse([step], outcome, observer)


class RanSheet:
    """Single timesteps, side by side: `outputs` are (batch, 1, …). See `RanTurns`."""

    timesteps = 1

    def __init__(self, columns: Columns, abreast: Abreast, records: Rows, outputs: Floats) -> None:
        self.layout = columns.layout
        self.writes = Writes(abreast.keys, columns.version, records)
        self._abreast = abreast
        self._steps: Sequence[int] = (columns.step + np.uint64(1)).tolist()
        self._outputs = named(columns.layout.spec, outputs[:, 0])

    def turn(self, i: int) -> StepTurn:
        (turn,) = self._abreast.turns([i])
        return turn

    def answer(self, rows: Sequence[int], observer: Observer) -> None:
        whole = len(rows) == len(self._steps)
        steps = self._steps if whole else [self._steps[i] for i in rows]
        outputs = self._outputs if whole else {name: output[rows] for name, output in self._outputs.items()}
        start = 0
        for home, first, last in self._abreast.spans if whole else self._abreast.pick(rows).spans:
            stop = start + last - first
            home.answer(first, steps[start:stop], {name: output[start:stop] for name, output in outputs.items()})
            start = stop
