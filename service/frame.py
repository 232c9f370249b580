"""Timesteps of many sessions that came in one message, from their admission to their answers."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from service.core.columns import Floats
from service.core.errors import ConveyorError
from service.core.session import Result, SessionKey, Timestep
from service.core.turn import Group, Part
from service.pending import Pending, Render, StepBatch, rendered

Numbers = NDArray[np.float32] | NDArray[np.float64]


class Answers(NamedTuple):
    """Answers to the timesteps of a frame's rows from `start` on: the steps that they are, and outputs (rows, …)."""

    start: int
    steps: Sequence[int]
    outputs: Mapping[str, Floats]


class Frame(Group[SessionKey, Pending]):
    """One timestep for each of `keys`. Row `i` of everything is about `keys[i]`.

    `x` is (sessions, features), as it was sent, and `numbers`, uint64, are the steps that these are to be, 0 for
    whatever is next. When `ended` is done, which nobody may cancel, each row is either in one of `answers` or in
    `outcomes`. The answers are what `render` has made of `Answers`, or without it these; where it failed, `ended` does.
    """

    def __init__(
        self,
        keys: Sequence[SessionKey],
        x: Numbers,
        numbers: NDArray[np.uint64],
        submitted: float,
        deadline: float,
        render: Render | None = None,
    ) -> None:
        super().__init__(keys, deadline)
        self.x = x
        self.numbers = numbers
        self.submitted = submitted
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answers: list[Any] = []
        self._render = render
        self._defect: Exception | None = None
        self.outcomes: dict[int, Result | ConveyorError] = {}
        self._is_ended = np.zeros(len(keys), bool)
        self._missing = len(keys)
        self._apart: dict[int, Pending] = {}

    def rendered(self, start: int, steps: Sequence[int], outputs: Mapping[str, Floats]) -> Any:
        """See `service.abreast.Home`."""
        return rendered(self._render, Answers(start, steps, outputs))

    def answer(self, start: int, stop: int, rendered: Any) -> None:
        """See `service.abreast.Home`."""
        self._defect = self._defect or (rendered if isinstance(rendered, Exception) else None)
        self.answers.append(rendered)
        self._end(slice(start, stop), stop - start)

    def step(self, i: int) -> Pending:
        """See `Group.step`. What becomes of it becomes of the frame's."""
        step = self._apart.get(i)
        if step is None:
            timestep = Timestep(self.x[i].tolist(), 1, int(self.numbers[i]) or None)
            future: asyncio.Future[Result] = self.ended.get_loop().create_future()
            step = self._apart[i] = Pending(timestep, future, self.submitted, self.deadline)

            def end(future: asyncio.Future[Result]) -> None:
                error = cast("ConveyorError | None", future.exception())  # `Pending` knows no others
                self.outcomes[i] = error or future.result()
                self._end(slice(i, i + 1), 1)

            future.add_done_callback(end)
        return step

    def unended(self, part: Part[SessionKey, Pending]) -> Iterator[tuple[SessionKey, Pending]]:
        """Take apart those timesteps of a part that have not ended."""
        if self._missing:
            for i in range(part.start, part.stop):
                if not self._is_ended[i]:
                    yield self.keys[i], self.step(i)

    def _end(self, rows: slice, count: int) -> None:
        self._is_ended[rows] = True
        self._missing -= count
        if self._missing:
            return
        if self._defect is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(self._defect)


def frames(batch: StepBatch) -> Iterator[tuple[Frame, Part[SessionKey, Pending]]]:
    """Return the frames of which a batch has parts, with these."""
    for part in batch.parts:
        yield cast("Frame", part.group), part
