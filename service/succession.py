"""What batches have to know of each other where one goes on with the sessions of another that is still being written.

The second is run on records that the store has not acknowledged. It cannot do harm: its writes name the records that
they replace, and lose where these were not written. What remains is the order. Nothing of the second may be read, run
or made again before what has to be made again of the first.
"""

import asyncio
from collections import defaultdict

from service.core.errors import MovedOn
from service.core.ports import Commit
from service.core.record import VERSION_SLICE
from service.core.session import SessionKey
from service.pending import StepBatch
from service.ran import Ran


class Succession:
    """See the module, and `Batch.behind`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiters: dict[StepBatch, asyncio.Future[None]] = {}
        self._writes: defaultdict[StepBatch, list[Ran]] = defaultdict(list)

    async def until_ended(self, before: StepBatch, batch: StepBatch) -> None:
        """Return when the batch has ended behind which this one was when it was planned."""
        if batch.behind is before:
            waiter = self._waiters.get(before)
            if waiter is None:
                waiter = self._waiters[before] = self._loop.create_future()
            await asyncio.shield(waiter)

    def end(self, batch: StepBatch) -> None:
        """Say that a batch has ended."""
        self._writes.pop(batch, None)
        if (waiter := self._waiters.pop(batch, None)) is not None:
            waiter.set_result(None)

    def writes(self, batch: StepBatch, ran: Ran) -> None:
        """Say what is being written for a batch that is behind another."""
        self._writes[batch].append(ran)

    def proves(self, batch: StepBatch, commit: Commit, moved: MovedOn) -> bool:
        """Return whether what is stored is what the batch behind this one has made of what was to be written here.

        Then that was written, too. Where replies are lost, all that was in flight is sent again, and the first finds
        the second in its place.
        """
        written = (
            (each for ran in self._writes.get(batch.followed, ()) for each in ran.writes) if batch.followed else ()
        )
        return any(
            each.version == commit.record[VERSION_SLICE] and each.record[VERSION_SLICE] == moved.version
            for each in written
            if each.key == commit.key
        )


def held_back(batch: StepBatch) -> set[SessionKey]:
    """Return the sessions of which something is known that has to be made again before any of this batch."""
    before = batch.behind
    return set(batch.owed) if before is None else {*batch.owed, *before.owed, *(turn.key for turn in before.again)}
