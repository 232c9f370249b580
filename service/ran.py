"""Timesteps that were run and are to be written, before anybody is told."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from service.abreast import Sheet, Span
from service.core.cache import RecordCache
from service.core.columns import Floats, Layout, Rows
from service.core.errors import ConveyorError
from service.core.plan import Window
from service.core.ports import Commit, Observer
from service.core.record import VERSION_SLICE, step_of
from service.core.session import Result
from service.core.timestep import named
from service.core.writes import Writes
from service.pending import Run, StepTurn, refuse


class Ran(Protocol):
    """What a run has made of some sessions of one model: `writes[i]` is that of what `turn(i)` is the turn of."""

    remembered: bool
    """Whether it is in the cache, or is not to be."""

    @property
    def layout(self) -> Layout: ...

    @property
    def timesteps(self) -> int:
        """How many of each session."""
        ...

    @property
    def writes(self) -> Sequence[Commit]: ...

    def turn(self, i: int) -> StepTurn: ...

    def render(self) -> None:
        """Make ready what is to be told if all of it is written, unless it is. See `service.pending.Render`."""
        ...

    def remember(self, rows: Sequence[int], cache: RecordCache) -> None:
        """Keep what has been written, or is about to be."""
        ...

    def answer(self, rows: Sequence[int], observer: Observer) -> None:
        """Tell what has been written."""
        ...


class RanTurns:
    """Turns of one length. See `Ran`.

    `records[i]` is to be written in the place of the one in `runs[i]`, and row `i` of the outputs, (batch, time, …), is
    about it, too.
    """

    def __init__(self, runs: Sequence[Run], records: Sequence[bytes], outputs: Floats) -> None:
        self.layout = runs[0].layout
        self.timesteps = runs[0].plan.length
        self.writes = [
            Commit(run.turn.key, run.record[VERSION_SLICE], record) for run, record in zip(runs, records, strict=True)
        ]
        self._runs = runs
        self._outputs = outputs
        self._rendered: list[list[Any]] = []
        self.remembered = False

    def turn(self, i: int) -> StepTurn:
        return self._runs[i].turn

    def render(self) -> None:
        if not self._rendered:
            outputs = named(self.layout.spec, self._outputs)
            self._rendered = [
                list(_rendered(run, {name: output[i] for name, output in outputs.items()}))
                for i, run in enumerate(self._runs)
            ]

    def remember(self, rows: Sequence[int], cache: RecordCache) -> None:
        self.remembered = True
        for i in rows:
            key, _, record = self.writes[i]
            cache.put(key, record, self.layout)

    def answer(self, rows: Sequence[int], observer: Observer) -> None:
        self.render()
        for i in rows:
            for step, rendered in zip(self._runs[i].turn.steps, self._rendered[i], strict=True):
                if isinstance(rendered, ConveyorError):
                    refuse([step], rendered, observer)
                elif rendered is not None:
                    step.answer(rendered)


def _rendered(run: Run, outputs: dict[str, Floats]) -> Iterator[Any]:
    """Return for each step of a turn what it is to be told, an error, or None where it has been told already."""
    before = step_of(run.record)
    for step, outcome in zip(run.turn.steps, run.plan.outcomes, strict=True):
        if isinstance(outcome, Window):
            window = slice(outcome.start, outcome.stop) if step.timestep.every else outcome.stop - 1
            found = {name: output[window] for name, output in outputs.items()}
            yield step.rendered(Result(before + outcome.stop, found, outcome.replayed))
        else:
            yield outcome if isinstance(outcome, ConveyorError) else None


class RanSheet:
    """Single timesteps, side by side: `outputs` are (batch, 1, …), and `records` the new ones. See `Ran`."""

    timesteps = 1

    def __init__(self, sheet: Sheet, records: Rows, outputs: Floats) -> None:
        self.layout = sheet.columns.layout
        self.writes = Writes(sheet.abreast.keys, sheet.columns.version, records)
        self._abreast = sheet.abreast
        self._place = sheet.place
        self._steps: Sequence[int] = (sheet.columns.step + np.uint64(1)).tolist()
        self._outputs = outputs[:, 0]
        self._rendered: list[tuple[Span, Any]] = []
        self.remembered = False

    def turn(self, i: int) -> StepTurn:
        (turn,) = self._abreast.turns([i])
        return turn

    def render(self) -> None:
        if not self._rendered:
            self._rendered = self._told(self._abreast.spans, self._steps, self._outputs)

    def remember(self, rows: Sequence[int], cache: RecordCache) -> None:
        self.remembered = True
        writes, place = self.writes, self._place
        if len(rows) < len(writes):
            writes, place = writes.pick(rows), place.pick(rows)
        cache.put_rows(writes.keys, self.layout, writes.records, place)

    def answer(self, rows: Sequence[int], observer: Observer) -> None:
        if len(rows) < len(self._steps):
            steps = [self._steps[i] for i in rows]
            told = self._told(self._abreast.pick(rows).spans, steps, self._outputs[rows])
        else:
            self.render()
            told = self._rendered
        for (home, start, stop), rendered in told:
            home.answer(start, stop, rendered)

    def _told(self, spans: Sequence[Span], steps: Sequence[int], outputs: Floats) -> list[tuple[Span, Any]]:
        by_name = named(self.layout.spec, outputs)
        told: list[tuple[Span, Any]] = []
        start = 0
        for span in spans:
            stop = start + span.stop - span.start
            part = {name: output[start:stop] for name, output in by_name.items()}
            told.append((span, span.home.rendered(span.start, steps[start:stop], part)))
            start = stop
        return told
