"""What batches have to know of each other where one goes on with the sessions of another that is still being written.

The second is run on records that the store has not acknowledged. It cannot do harm: its writes name the records that
they replace, and lose where these were not written. What remains is the order. Nothing of the second may be read, run
or made again before what has to be made again of the first.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Sequence

from service.abreast import Abreast
from service.core.record import VERSION_SLICE
from service.core.session import SessionKey
from service.pending import StepBatch, StepTurn
from service.ran import Ran


class Succession:
    """See the module, and `Batch.before`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiters: dict[StepBatch, asyncio.Future[None]] = {}
        self._written: defaultdict[StepBatch, list[Ran]] = defaultdict(list)

    async def until_ended(self, before: StepBatch) -> None:
        """Return when a batch has ended that has not yet."""
        waiter = self._waiters.get(before)
        if waiter is None:
            waiter = self._waiters[before] = self._loop.create_future()
        await asyncio.shield(waiter)

    def end(self, batch: StepBatch) -> None:
        """Say that a batch has ended."""
        if batch.next is not None:
            self._written.pop(batch.next, None)
        if (waiter := self._waiters.pop(batch, None)) is not None:
            waiter.set_result(None)

    def writes(self, batch: StepBatch, ran: Ran) -> None:
        """Say what is being written for a batch, if another is before it."""
        if batch.before is not None:
            self._written[batch].append(ran)

    def written_behind(self, batch: StepBatch) -> dict[tuple[SessionKey, bytes], bytes]:
        """Return what the next batch writes, if there is one: by session and the version that it replaces, its own.

        If that is stored, what it replaces was written, too. Where replies are lost, all that was in flight is sent
        again, and what this batch has written may be found to have been replaced so.
        """
        written = () if batch.next is None else self._written.get(batch.next, ())
        return {(each.key, each.version): each.record[VERSION_SLICE] for ran in written for each in ran.writes}


def held_back(batch: StepBatch) -> set[SessionKey]:
    """Return the sessions of which something is known that has to be made again before any of this batch."""
    return set(batch.owed) if batch.before is None else {turn.key for turn in batch.before.again}


def without(held: Collection[SessionKey], turns: Sequence[StepTurn], again: list[StepTurn]) -> list[StepTurn]:
    """Return the turns of other sessions; those of these are to be made again."""
    again += [turn for turn in turns if turn.key in held]
    return [turn for turn in turns if turn.key not in held]


def without_abreast(held: Collection[SessionKey], abreast: Abreast, again: list[StepTurn]) -> Abreast:
    """Do what `without` does for timesteps side by side."""
    rows = [i for i, key in enumerate(abreast.keys) if key in held]
    again += abreast.turns(rows)
    return abreast.pick([i for i, key in enumerate(abreast.keys) if key not in held])
