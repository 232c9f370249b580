"""Timesteps that were run and are to be written, before anybody is told."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from service.abreast import Sheet
from service.core.columns import Floats, Layout
from service.core.errors import ConveyorError
from service.core.plan import Window
from service.core.ports import Commit, Observer
from service.core.record import VERSION_SLICE
from service.core.session import Result
from service.core.timestep import named
from service.pending import Run, StepTurn, refuse


class Ran(Protocol):
    """What a run has made of some sessions of one model: `commits[i]` is the write of what `turn(i)` is the turn of."""

    @property
    def layout(self) -> Layout: ...

    @property
    def timesteps(self) -> int:
        """How many of each session."""
        ...

    @property
    def commits(self) -> Sequence[Commit]: ...

    def turn(self, i: int) -> StepTurn: ...

    def answer(self, rows: Iterable[int], observer: Observer) -> None:
        """Tell what has been written."""
        ...


class RanTurns:
    """Turns of one length. See `Ran`.

    `records` are those that are to be written, `before` the steps that the sessions were at. The outputs of `runs[i]`
    are row `rows[i]` of `outputs`, (batch, time, …).
    """

    def __init__(
        self,
        layout: Layout,
        runs: Sequence[Run],
        records: Sequence[bytes],
        before: Sequence[int],
        outputs: Floats,
        rows: Sequence[int],
    ) -> None:
        self.layout = layout
        self.timesteps = runs[0].plan.length
        self.commits = [
            Commit(run.turn.key, run.record[VERSION_SLICE], record) for run, record in zip(runs, records, strict=True)
        ]
        self._runs = runs
        self._before = before
        self._outputs: Mapping[str, Floats] = named(layout.spec, outputs)
        self._rows = rows

    def turn(self, i: int) -> StepTurn:
        return self._runs[i].turn

    def answer(self, rows: Iterable[int], observer: Observer) -> None:
        for i in rows:
            turn, plan, row, before = self._runs[i].turn, self._runs[i].plan, self._rows[i], self._before[i]
            for step, outcome in zip(turn.steps, plan.outcomes, strict=True):
                if isinstance(outcome, Window):
                    window = slice(outcome.start, outcome.stop) if step.timestep.every else outcome.stop - 1
                    found = {name: output[row, window] for name, output in self._outputs.items()}
                    step.answer(Result(before + outcome.stop, found, outcome.replayed))
                elif isinstance(outcome, ConveyorError):
                    refuse([step], outcome, observer)


class RanSheet:
    """Single timesteps, side by side. See `Ran`.

    `records` are those that are to be written, `outputs` are (batch, 1, …); row `i` of both is about that of the sheet.
    """

    timesteps = 1

    def __init__(self, sheet: Sheet, records: Sequence[bytes], outputs: Floats) -> None:
        self.layout = sheet.layout
        versions = [record[VERSION_SLICE] for record in sheet.records]
        self.commits = list(map(Commit, sheet.abreast.keys, versions, records))
        self._sheet = sheet
        self._outputs: Mapping[str, Floats] = named(sheet.layout.spec, outputs[:, 0])

    def turn(self, i: int) -> StepTurn:
        (turn,) = self._sheet.abreast.turns([i])
        return turn

    def answer(self, rows: Iterable[int], observer: Observer) -> None:
        steps = (self._sheet.columns.step + 1).tolist()
        homes = self._sheet.abreast.homes
        names = list(self._outputs)
        columns = [list(output) for output in self._outputs.values()]
        for i in rows:
            homes[i].answer(Result(steps[i], {name: column[i] for name, column in zip(names, columns, strict=True)}))
