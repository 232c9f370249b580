"""Of all that is ready, what goes into one batch."""

from typing import Generic

from service.core.lines import Line, Lines
from service.core.rounds import Rounds, Tenant
from service.core.turn import Batch, Group, K, Lane, Part, S, Turn


class Forming(Generic[K, S]):
    """Takes turns out of the lines of who is ready, tenant by tenant. For the limits see `service.core.batch`."""

    def __init__(self, rounds: Rounds[K | Group[K, S]], lines: Lines[K, S], *, max_turn: int, long_turn: int) -> None:
        self._rounds = rounds
        self._lines = lines
        self._max_turn = max_turn
        self._long_turn = long_turn

    def lane(self, step: S) -> Lane:
        """Return the lane of a turn that begins with this step."""
        return Lane.LONG if step.length > self._long_turn else Lane.SHORT

    def form(self, lane: Lane, now: float, most: int | None) -> Batch[K, S]:
        """Take what goes into the next batch, of `most` sessions at most. There may be nothing in it."""
        rounds = self._rounds
        tenants, room = rounds.ready[lane], rounds.room(lane, now)
        if most is not None:
            room = min(room, most)
        batch: Batch[K, S] = Batch(lane)
        while tenants and batch.sessions < room:
            taken = batch.timesteps
            self._take_turns(rounds.next(lane), room, now, batch)
            rounds.took(lane, batch.timesteps - taken)
        return batch

    def _take_turns(self, tenant: Tenant[K | Group[K, S]], room: int, now: float, batch: Batch[K, S]) -> None:
        """Let a tenant take turns while it has credit."""
        lane, ready = batch.lane, tenant.ready[batch.lane]
        credit = batch.timesteps + tenant.credit  # so many timesteps the batch has when it is spent
        while ready and batch.timesteps < credit and batch.sessions < room:
            entry = ready.popleft()
            if isinstance(entry, Group):
                most = room - batch.sessions
                if len(self._rounds.ready[lane]) > 1:
                    most = min(most, credit - batch.timesteps)
                if not may_be_taken(entry, most):
                    entry.ready = False
                    continue
                self._take_part(entry, most, now, batch)
                if entry.taken < len(entry):
                    ready.appendleft(entry)
            elif steps := self._next_steps(self._lines[entry], now, batch):
                batch.turns.append(Turn(entry, steps))
                batch.sessions += 1
            else:
                batch.idle.append(entry)

    def _take_part(self, group: Group[K, S], most: int, now: float, batch: Batch[K, S]) -> None:
        """Take the timesteps of at most so many sessions of a group, or all that is left of one that is too late."""
        late = group.deadline < now
        start, end = group.taken, len(group)
        stop = end if late else min(start + most, end)
        part = Part(group, start, stop)
        group.taken = stop
        batch.timesteps += len(part)
        if len(part) == len(group):
            group.batch = batch
        else:
            self._lines.end_succession(group)
        if group.before is not None and (before := group.before.batch) is not None:
            batch.before, before.next, batch.early = before, batch, True
        if late:
            batch.expired += part.steps()
            batch.late.append(part)
        else:
            batch.parts.append(part)
            batch.sessions += len(part)

    def _next_steps(self, line: Line[S, K], now: float, batch: Batch[K, S]) -> list[S]:
        """Take a turn's steps out of a session's line, and those that are too late."""
        taken: list[S] = []
        length = gone = 0
        for step in line:
            if isinstance(step, Group):
                break
            if step.deadline < now:
                batch.expired.append(step)
            elif taken and (length + step.length > self._max_turn or step.alone or taken[0].alone):
                break
            elif not taken and self.lane(step) is not batch.lane:
                break  # behind some that are too late
            else:
                taken.append(step)
                length += step.length
            batch.timesteps += step.length
            gone += 1
        del line[:gone]
        return taken


def may_be_taken(group: Group[K, S], most: int) -> bool:
    """Return whether so many sessions at most may be taken of a group that is ready.

    Before that which it follows has ended, it has to stay in one piece, and nothing may be known that has to be made
    again first.
    """
    if group.before is None:
        return True
    batch = group.before.batch
    return batch is not None and batch.sent and not batch.again and not batch.owed and len(group) <= most
