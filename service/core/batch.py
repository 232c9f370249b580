"""The batch former: which steps of which sessions go into the next batch.

A pure state machine. It holds no clock and starts nothing: the engine hands it steps and the time, and asks.

- Within a session, steps keep their order, and at most one turn of it is in flight, but for successions.
- A turn takes as many steps of its session as `max_turn` timesteps allow, and at least one.
- Sessions of a tenant take turns in the order in which they became ready. One that has more to do goes to the end of
  the line after each turn, so nobody starves.
- Tenants take turns, too: see `rounds.py`.
- A step that is `alone` shares its turn with no other.
- Who is too late takes no place in a batch.
- A group (one timestep for each of many sessions) stands in the line of each of them, and is ready when it is the first
  in all. It may take its turns in several batches.
- Long turns (more than `long_turn` timesteps) travel in batches of their own, beside the short ones, so that a chunk
  of hundreds of timesteps holds up no single step. Each of the two lanes has at most one batch that is being run.
- While one is only being written still, the next of its lane may begin, if a `crowd` of sessions is ready for it. For
  fewer, it is better to wait for those who are about to be answered, and to make one batch with them.
- The next group of a succession (`lines.py`) may be taken when that before it is only being written, and then without a
  crowd, if most of its batch is followed so. What of that has to be made again comes before any of the next.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import Generic

from service.core.forming import Forming, may_be_taken
from service.core.lines import Line, Lines
from service.core.rounds import Rounds, Tenant
from service.core.turn import Batch, Group, K, Lane, Part, S, Turn

_LANES = tuple(Lane)  # at a fraction of what it costs to iterate over the enumeration


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
        self._crowd = min(crowd, max_sessions)
        self._tenant_of = tenant_of
        self._lines: Lines[K, S] = Lines()
        self._groups: dict[Group[K, S], None] = {}  # of which something waits, in their order
        self._rounds: Rounds[K | Group[K, S]] = Rounds(max_sessions)
        self._forming = Forming(self._rounds, self._lines, max_turn=max_turn, long_turn=long_turn)
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
        length = step.length
        if self._lines.add(key, step):
            self._rounds.make_ready(tenant, self._forming.lane(step), key)
        tenant.waiting += length
        self.waiting += length

    def add_group(self, group: Group[K, S]) -> None:
        """Put a group behind what else its sessions have to do. They are of one tenant, and at least one."""
        tenant = self._tenant(group.keys[0])
        self._groups[group] = None
        if self._lines.add_group(group) or (group.before is not None and may_be_taken(group, len(group))):
            self._make_ready(group)
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
                batch = self._forming.form(lane, now, most)
                if batch.timesteps:
                    self._took(batch)
                    return batch
        return None

    def _took(self, batch: Batch[K, S]) -> None:
        self._in_flight[batch.lane].append(batch)
        self.waiting -= batch.timesteps
        for part in (*batch.parts, *batch.late):
            if part.stop == len(part.group):
                del self._groups[part.group]

    def sent(self, batch: Batch[K, S]) -> bool:
        """Say that all of a batch has been run, and is being written. Returns whether the next one may begin."""
        batch.sent = True
        for part in batch.parts:
            if part.group.next is not None:
                self._make_ready(part.group.next)
        return self._has_place(batch.lane, early=True)

    def steps(self) -> list[S]:
        """Return the steps that wait; those of groups do not count as such."""
        return list(self._lines.steps())

    def groups(self) -> list[Group[K, S]]:
        """Return the groups of which something waits."""
        return list(self._groups)

    def abandon(self) -> list[S]:
        """Forget all that waits, and return it, groups taken to pieces. Nothing may be in flight, if it was begun."""
        waiting = self.steps()
        for group in self._groups:
            waiting += Part(group, group.taken, len(group)).steps()
        owed = (turn for lane in self._in_flight for batch in lane for turn in batch.owed.values())
        waiting += [step for turn in owed for step in turn.steps]
        self._lines.clear()
        self._groups.clear()
        self._rounds.clear()
        self._latest = Tenant(None)
        self.waiting = 0
        return waiting

    def done(self, batch: Batch[K, S], again: Iterable[Turn[K, S]] = ()) -> None:
        """Say that a batch has ended. Turns in `again` have not, and are the first to be taken next."""
        if batch.before is not None:
            batch.left = list(again)  # until that has ended
            return
        self._in_flight[batch.lane].remove(batch)
        repeated = {turn.key: turn for turn in again}
        for key, turn in batch.owed.items():
            later = repeated[key].steps if key in repeated else []
            repeated[key] = Turn(key, [*turn.steps, *later])
        keys = [turn.key for turn in batch.turns] + batch.idle
        for part in (*batch.parts, *batch.late):
            if not self._goes_on(part.group, repeated):
                keys += part.keys
            part.group.batch = None  # or the two would hold each other
        self._end(keys, repeated)
        if (following := batch.next) is not None:
            batch.next = following.before = None
            if following.left is not None:
                self.done(following, following.left)

    def _goes_on(self, group: Group[K, S], repeated: dict[K, Turn[K, S]]) -> bool:
        """Let the next group of a succession take the place of one that has ended; return whether there is one.

        Turns that are to be made again are taken out of `repeated` where that is in flight already.
        """
        following = group.next
        if following is None:
            self._lines.end_succession(group)
            return False
        own = repeated.keys() & set(group.keys) if repeated else ()
        if following.batch is not None:
            following.batch.owed.update((key, repeated.pop(key)) for key in own)
        elif own:
            self._withdraw(following)
            self._lines.end_succession(group)
            return False
        else:
            self._make_ready(following)
        group.next = following.before = None
        return True

    def _end(self, keys: list[K], repeated: dict[K, Turn[K, S]]) -> None:
        """End turns of these sessions."""
        left = self._lines.end(keys)
        if not repeated and not any(left):
            return
        for key, line in zip(keys, left, strict=True):
            if key in repeated:
                self._lines.go_on(key, [*repeated[key].steps, *line])
                self._repeat(repeated[key])
            elif line:
                self._lines.go_on(key, line)
                self._go_on(key, line)

    def _repeat(self, turn: Turn[K, S]) -> None:
        tenant = self._tenant(turn.key)
        length = sum(step.length for step in turn.steps)
        tenant.waiting += length
        self.waiting += length
        self._rounds.make_ready(tenant, self._forming.lane(turn.steps[0]), turn.key, first=True)

    def _go_on(self, key: K, line: Line[S, K]) -> None:
        following = line[0]
        if not isinstance(following, Group):
            self._rounds.make_ready(self._tenant(key), self._forming.lane(following), key)
            return
        del line[0]
        following.behind -= 1
        if not following.behind:
            self._make_ready(following)

    def _tenant(self, key: K) -> Tenant[K | Group[K, S]]:
        return self._rounds.enter(self._tenant_of(key))

    def _make_ready(self, group: Group[K, S]) -> None:
        if not group.ready:
            group.ready = True
            self._rounds.make_ready(self._tenant(group.keys[0]), Lane.SHORT, group)

    def _withdraw(self, group: Group[K, S]) -> None:
        if group.ready:
            group.ready = False
            self._rounds.withdraw(self._tenant(group.keys[0]), Lane.SHORT, group)

    def _has_place(self, lane: Lane, *, early: bool) -> bool:
        before = self._in_flight[lane]
        if not before:
            return True
        return early and len(before) == 1 and before[0].sent and (_is_followed(before[0]) or self._is_crowd_ready(lane))

    def _is_crowd_ready(self, lane: Lane) -> bool:
        if self.waiting < self._crowd:
            return False
        found = 0
        for tenant in self._rounds.ready[lane]:
            for entry in tenant.ready[lane]:
                if not isinstance(entry, Group):
                    found += 1
                elif may_be_taken(entry, len(entry)):
                    found += len(entry) - entry.taken
                if found >= self._crowd:
                    return True
        return False


def _is_followed(batch: Batch[K, S]) -> bool:
    """Return whether most of a batch's sessions have more to do already: then there is hardly anybody to wait for."""
    groups = [group for part in batch.parts if (group := part.group.next) is not None and group.ready]
    return 2 * sum(len(group) for group in groups if may_be_taken(group, len(group))) >= max(batch.sessions, 1)
