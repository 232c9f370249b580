"""The batch former: which steps of which sessions go into the next batch.

A pure state machine. It holds no clock and starts nothing: the engine hands it steps and the time, and asks.

- Within a session, steps keep their order, and at most one turn of it is in flight.
- A turn takes as many consecutive steps of its session as `max_turn` timesteps allow, and at least one.
- Sessions of a tenant take turns in the order in which they became ready. One that has more to do goes to the end of
  the line after each turn, so nobody starves.
- Tenants take turns, too: see `rounds.py`.
- A step that is `alone` shares its turn with no other.
- Steps that are too late take no place in a batch.
- A group (one timestep for each of many sessions) stands in the line of each of them, and is ready when it is the first
  in all. It may take its turns in several batches, where not all of it is due.
- Long turns (more than `long_turn` timesteps) travel in batches of their own, beside the short ones, so that a chunk
  of hundreds of timesteps holds up no single step. Each of the two lanes has at most one batch that is being run.
- While one is only being written still, the next of its lane may begin, if a `crowd` of sessions is ready for it. For
  fewer, it is better to wait for those who are about to be answered, and to make one batch with them.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Generic, cast

from service.core.rounds import Rounds, Tenant
from service.core.turn import Batch, Group, K, Lane, Part, S, Turn

_LANES = tuple(Lane)  # at a fraction of what it costs to iterate over the enumeration


_NOTHING = cast("list[Any]", ())
"""The line of a session that came with a group, in which nothing stands. One for all of them: it cannot be changed."""


def _nobody(_key: Hashable) -> Hashable:
    return None


class BatchFormer(Generic[K, S]):
    """See the module. `waiting` is the count of timesteps that were added and not yet taken.

    `tenant_of` tells whose a session is; without it, all are one tenant's.
    """

    def __init__(
        self,
        *,
        max_sessions: int,
        max_turn: int = 64,
        long_turn: int = 64,
        crowd: int = 128,
        tenant_of: Callable[[K], Hashable] = _nobody,
    ) -> None:
        self._max_turn = max_turn
        self._long_turn = long_turn
        self._crowd = min(crowd, max_sessions)
        self._tenant_of = tenant_of
        # What waits for a session. It has a line, if an empty one, while a turn of it is in flight or a group has it.
        self._lines: dict[K, list[S | Group[K, S]]] = {}
        self._groups: dict[Group[K, S], None] = {}  # of which something waits, in their order
        self._rounds: Rounds[K | Group[K, S]] = Rounds(max_sessions)
        self._latest: Tenant[K | Group[K, S]] = Tenant(None)  # most often the next step's, too
        self._in_flight: tuple[list[Batch[K, S]], list[Batch[K, S]]] = ([], [])  # by lane
        self.waiting = 0

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is in flight."""
        return not self._lines and not any(self._in_flight)

    def add(self, key: K, step: S) -> None:
        """Put a step behind the session's others."""
        tenant = self._latest
        if (name := self._tenant_of(key)) != tenant.name or not tenant.waiting:
            tenant = self._latest = self._rounds.enter(name)
        line = self._lines.get(key)
        length = step.length
        if line is None:
            self._rounds.make_ready(tenant, self._lane(step), key)
        if line:
            line.append(step)
        else:
            self._lines[key] = [step]
        tenant.waiting += length
        self.waiting += length

    def add_group(self, group: Group[K, S]) -> None:
        """Put a group behind what else its sessions have to do. They are of one tenant, and at least one."""
        tenant = self._rounds.enter(self._tenant_of(group.keys[0]))
        lines = self._lines
        if lines.keys().isdisjoint(group.keys):
            lines.update(dict.fromkeys(group.keys, _NOTHING))
        else:
            for key in group.keys:
                if (line := lines.get(key)) is None:
                    lines[key] = _NOTHING
                    continue
                if line:
                    line.append(group)
                else:
                    lines[key] = [group]
                group.behind += 1
        self._groups[group] = None
        if not group.behind:
            self._rounds.make_ready(tenant, Lane.SHORT, group)
        tenant.waiting += len(group)
        self.waiting += len(group)

    def waiting_of(self, tenant: Hashable) -> int:
        """Return how many timesteps of a tenant wait."""
        found = self._rounds.get(tenant)
        return 0 if found is None else found.waiting

    def tenants(self, tenant: Hashable) -> int:
        """Return how many tenants have something waiting, this one counted as one of them."""
        return len(self._rounds) + (self._rounds.get(tenant) is None)

    def take(self, now: float, most: int | None = None) -> Batch[K, S] | None:
        """Form a batch of what is ready, or return None where nothing is or no lane may have another.

        With `most`, it has so many sessions at most, and does not begin while another of its lane is written.
        """
        for lane in _LANES:
            if self._rounds.ready[lane] and self._has_place(lane, early=most is None):
                batch = self._form(lane, now, most)
                self._in_flight[lane].append(batch)
                return batch
        return None

    def sent(self, batch: Batch[K, S]) -> bool:
        """Say that all of a batch has been run, and is being written. Returns whether the next one may begin."""
        batch.sent = True
        return self._has_place(batch.lane, early=True)

    def steps(self) -> list[S]:
        """Return the steps that wait; those of groups do not count as such."""
        return [step for line in self._lines.values() for step in line if not isinstance(step, Group)]

    def groups(self) -> list[Group[K, S]]:
        """Return the groups of which something waits."""
        return list(self._groups)

    def abandon(self) -> list[S]:
        """Forget all that waits, and return it, groups taken to pieces. Nothing may be in flight."""
        waiting = self.steps()
        for group in self._groups:
            waiting += Part(group, group.taken, len(group)).steps()
        self._lines.clear()
        self._groups.clear()
        self._rounds.clear()
        self._latest = Tenant(None)
        self.waiting = 0
        return waiting

    def done(self, batch: Batch[K, S], again: Iterable[Turn[K, S]] = ()) -> None:
        """Say that a batch has ended. Turns in `again` have not, and are the first to be taken next."""
        self._in_flight[batch.lane].remove(batch)
        repeated = {turn.key: turn for turn in again}
        keys = batch.everybody()
        left = list(map(self._lines.pop, keys))  # nearly always nothing: at a fraction of what it costs to look at each
        if not repeated and not any(left):
            return
        for key, line in zip(keys, left, strict=True):
            if key in repeated:
                self._lines[key] = [*repeated[key].steps, *line]
                self._repeat(repeated[key])
            elif line:
                self._lines[key] = line
                self._go_on(key, line)

    def _repeat(self, turn: Turn[K, S]) -> None:
        tenant = self._rounds.enter(self._tenant_of(turn.key))
        length = sum(step.length for step in turn.steps)
        tenant.waiting += length
        self.waiting += length
        self._rounds.make_ready(tenant, self._lane(turn.steps[0]), turn.key, first=True)

    def _go_on(self, key: K, line: list[S | Group[K, S]]) -> None:
        following = line[0]
        if not isinstance(following, Group):
            self._rounds.make_ready(self._rounds.enter(self._tenant_of(key)), self._lane(following), key)
            return
        del line[0]
        following.behind -= 1
        if not following.behind:
            self._rounds.make_ready(self._rounds.enter(self._tenant_of(key)), Lane.SHORT, following)

    def _has_place(self, lane: Lane, *, early: bool) -> bool:
        before = self._in_flight[lane]
        return not before or (early and len(before) == 1 and before[0].sent and self._is_crowd_ready(lane))

    def _is_crowd_ready(self, lane: Lane) -> bool:
        if self.waiting < self._crowd:
            return False
        found = 0
        for tenant in self._rounds.ready[lane]:
            for entry in tenant.ready[lane]:
                found += len(entry) - entry.taken if isinstance(entry, Group) else 1
                if found >= self._crowd:
                    return True
        return False

    def _lane(self, step: S) -> Lane:
        return Lane.LONG if step.length > self._long_turn else Lane.SHORT

    def _form(self, lane: Lane, now: float, most: int | None) -> Batch[K, S]:
        rounds = self._rounds
        tenants, room = rounds.ready[lane], rounds.room(lane, now)
        if most is not None:
            room = min(room, most)
        batch: Batch[K, S] = Batch(lane)
        before = self.waiting
        while tenants and batch.sessions < room:
            waiting = self.waiting
            self._take_turns(rounds.next(lane), room, now, batch)
            rounds.took(lane, waiting - self.waiting)
        batch.timesteps = before - self.waiting
        return batch

    def _take_turns(self, tenant: Tenant[K | Group[K, S]], room: int, now: float, batch: Batch[K, S]) -> None:
        """Let a tenant take turns while it has credit."""
        lane, ready = batch.lane, tenant.ready[batch.lane]
        spent = self.waiting - tenant.credit  # what waits when its credit is
        while ready and self.waiting > spent and batch.sessions < room:
            entry = ready.popleft()
            if isinstance(entry, Group):
                most = room - batch.sessions
                if len(self._rounds.ready[lane]) > 1:
                    most = min(most, self.waiting - spent)
                self._take_part(entry, most, now, batch)
                if entry.taken < len(entry):
                    ready.appendleft(entry)
            elif steps := self._next_steps(self._lines[entry], lane, now, batch.expired):
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
        if stop == end:
            del self._groups[group]
        self.waiting -= stop - start
        if late:
            batch.expired += part.steps()
            batch.idle += part.keys
        else:
            batch.parts.append(part)
            batch.sessions += stop - start

    def _next_steps(self, line: list[S | Group[K, S]], lane: Lane, now: float, expired: list[S]) -> list[S]:
        taken: list[S] = []
        length = gone = 0
        for step in line:
            if isinstance(step, Group):
                break
            if step.deadline < now:
                expired.append(step)
            elif taken and (length + step.length > self._max_turn or step.alone or taken[0].alone):
                break
            elif not taken and self._lane(step) is not lane:
                break  # behind some that are too late
            else:
                taken.append(step)
                length += step.length
            self.waiting -= step.length
            gone += 1
        del line[:gone]
        return taken
