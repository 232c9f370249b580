"""Timesteps of many sessions that came in one message, from their admission to their answers."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

from service.core.errors import ConveyorError
from service.core.session import Result, SessionKey, Timestep
from service.core.turn import Group, Part
from service.pending import Pending, StepBatch

Outcome = Result | ConveyorError


class Frame(Group[SessionKey, Pending]):
    """One timestep for each of `keys`. Row `i` of each list is about `keys[i]`.

    `values` are the numbers as they were sent, `numbers` the steps that they are to be, 0 for whatever is next.
    `outcomes` are there when `ended` is done, which is cancelled by nobody.
    """

    def __init__(
        self,
        keys: Sequence[SessionKey],
        values: Sequence[Sequence[float]],
        numbers: Sequence[int],
        submitted: float,
        deadline: float,
    ) -> None:
        super().__init__(keys, deadline)
        self.values = values
        self.numbers = numbers
        self.submitted = submitted
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.outcomes: list[Outcome | None] = [None] * len(keys)
        self._missing = len(keys)
        self._apart: dict[int, Pending] = {}

    def end(self, i: int, outcome: Outcome) -> None:
        """Say what became of a timestep. It happens once to each."""
        self.outcomes[i] = outcome
        self._missing -= 1
        if not self._missing:
            self.ended.set_result(None)

    def step(self, i: int) -> Pending:
        """See `Group.step`. What becomes of it becomes of the frame's."""
        step = self._apart.get(i)
        if step is None:
            timestep = Timestep(self.values[i], 1, self.numbers[i] or None)
            future: asyncio.Future[Result] = self.ended.get_loop().create_future()
            step = self._apart[i] = Pending(timestep, future, self.submitted, self.deadline)

            def end(future: asyncio.Future[Result]) -> None:
                error = cast("ConveyorError | None", future.exception())  # `Pending` knows no others
                self.end(i, error or future.result())

            future.add_done_callback(end)
        return step

    def unended(self, part: Part[SessionKey, Pending]) -> Iterator[tuple[SessionKey, Pending]]:
        """Take apart those timesteps of a part that have not ended."""
        if self._missing:
            for i in range(part.start, part.stop):
                if self.outcomes[i] is None:
                    yield self.keys[i], self.step(i)


class Seat(NamedTuple):
    """A place in a frame: where the answer to one of its timesteps goes."""

    frame: Frame
    i: int

    def answer(self, result: Result) -> None:
        self.frame.end(self.i, result)

    def step(self) -> Pending:
        return self.frame.step(self.i)


def frames(batch: StepBatch) -> Iterator[tuple[Frame, Part[SessionKey, Pending]]]:
    """Return the frames of which a batch has parts, with these."""
    for part in batch.parts:
        yield cast("Frame", part.group), part
