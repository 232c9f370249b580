"""The batch former: which steps of which sessions go into the next batch.

A pure state machine. It holds no clock and starts nothing: the engine hands it steps and the time, and asks.

- Within a session, steps keep their order, and at most one turn of it is in flight.
- A turn takes as many consecutive steps of its session as `max_turn` timesteps allow, and at least one.
- Sessions of a tenant take turns in the order in which they became ready. One that has more to do goes to the end of
  the line after each turn, so nobody starves.
- Tenants take turns, too: deficit round robin, counted in timesteps. One that has thousands of sessions ready takes no
  place in a batch from one that has a few, and what one took ahead of its share is remembered. While several tenants
  are about, batches are smaller, because a step that has just missed a batch has to wait for the end of it.
- A step that is `alone` shares its turn with no other.
- Steps that are too late take no place in a batch.
- A group (one timestep for each of many sessions) stands in the line of each of them, and is ready when it is the first
  in all. It may take its turns in several batches, where not all of it is due.
- Long turns (more than `long_turn` timesteps) travel in batches of their own, beside the short ones, so that a chunk
  of hundreds of timesteps holds up no single step. Each of the two lanes has at most one batch in flight.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Generic

from service.core.turn import Batch, Group, K, Lane, Part, S, Turn

_SHARED = 64
"""Turns in a batch while several tenants are about. Beyond so many, a batch gains little by growing."""
_SHARED_S = 1.0
"""How long a tenant that was seen is expected to come again, in seconds."""


class _Tenant(Generic[K, S]):
    """A tenant of which something waits: its sessions and groups that are ready, by lane, and its waiting timesteps.

    `credit` is what it may still take, in timesteps, before it is another's turn.
    """

    __slots__ = ("credit", "name", "ready", "waiting")

    def __init__(self, name: Hashable) -> None:
        self.name = name
        self.ready: tuple[deque[K | Group[K, S]], deque[K | Group[K, S]]] = (deque(), deque())
        self.waiting = 0
        self.credit = 0


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
        tenant_of: Callable[[K], Hashable] = _nobody,
    ) -> None:
        self._max_sessions = max_sessions
        self._quantum = max(1, min(max_sessions, _SHARED) // 4)
        self._max_turn = max_turn
        self._long_turn = long_turn
        self._tenant_of = tenant_of
        # What waits for a session. It has a line, if an empty one, while a turn of it is in flight or a group has it.
        self._lines: dict[K, list[S | Group[K, S]]] = {}
        self._groups: dict[Group[K, S], None] = {}  # of which something waits, in their order
        self._tenants: dict[Hashable, _Tenant[K, S]] = {}
        self._debts: dict[Hashable, int] = {}  # credit of tenants of which nothing waits
        self._latest: _Tenant[K, S] = _Tenant(None)  # most often the next step's, too
        # Tenants with something ready, the first being the next to take its turns.
        self._rounds: tuple[deque[_Tenant[K, S]], deque[_Tenant[K, S]]] = (deque(), deque())
        self._alone: Hashable = None  # who had the latest batch to itself
        self._shared_until = float("-inf")
        self._in_flight: set[Lane] = set()
        self.waiting = 0

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is in flight."""
        return not self._lines and not self._in_flight

    def add(self, key: K, step: S) -> None:
        """Put a step behind the session's others."""
        tenant = self._latest
        if (name := self._tenant_of(key)) != tenant.name or not tenant.waiting:
            tenant = self._latest = self._find(name)
        line = self._lines.get(key)
        length = step.length
        if line is None:
            self._lines[key] = [step]
            self._make_ready(tenant, self._lane(step), key)
        else:
            line.append(step)
        tenant.waiting += length
        self.waiting += length

    def add_group(self, group: Group[K, S]) -> None:
        """Put a group behind what else its sessions have to do. They are of one tenant, and at least one."""
        tenant = self._find(self._tenant_of(group.keys[0]))
        lines = self._lines
        if lines.keys().isdisjoint(group.keys):
            lines.update(zip(group.keys, [[] for _ in group.keys], strict=True))
        else:
            for key in group.keys:
                if (line := lines.get(key)) is None:
                    lines[key] = []
                else:
                    line.append(group)
                    group.behind += 1
        self._groups[group] = None
        if not group.behind:
            self._make_ready(tenant, Lane.SHORT, group)
        tenant.waiting += len(group)
        self.waiting += len(group)

    def waiting_of(self, tenant: Hashable) -> int:
        """Return how many timesteps of a tenant wait."""
        found = self._tenants.get(tenant)
        return 0 if found is None else found.waiting

    def tenants(self, tenant: Hashable) -> int:
        """Return how many tenants have something waiting, this one counted as one of them."""
        return len(self._tenants) + (tenant not in self._tenants)

    def take(self, now: float) -> Batch[K, S] | None:
        """Form a batch from what is ready, or return None where nothing is or all lanes are in flight."""
        for lane in Lane:
            if self._rounds[lane] and lane not in self._in_flight:
                self._in_flight.add(lane)
                return self._form(lane, now)
        return None

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
        self._tenants.clear()
        self._debts.clear()
        for each in self._rounds:
            each.clear()
        self._latest = _Tenant(None)
        self.waiting = 0
        return waiting

    def done(self, batch: Batch[K, S], again: Iterable[Turn[K, S]] = ()) -> None:
        """Say that a batch has ended. Turns in `again` have not, and are the first to be taken next."""
        self._in_flight.remove(batch.lane)
        repeated = {turn.key: turn for turn in again}
        for key in batch.everybody():
            if repeated and key in repeated:
                self._repeat(repeated[key])
            elif line := self._lines[key]:
                self._go_on(key, line)
            else:
                del self._lines[key]

    def _repeat(self, turn: Turn[K, S]) -> None:
        self._lines[turn.key][:0] = turn.steps
        tenant = self._find(self._tenant_of(turn.key))
        length = sum(step.length for step in turn.steps)
        tenant.waiting += length
        self.waiting += length
        self._make_ready(tenant, self._lane(turn.steps[0]), turn.key, first=True)

    def _go_on(self, key: K, line: list[S | Group[K, S]]) -> None:
        following = line[0]
        if not isinstance(following, Group):
            self._make_ready(self._find(self._tenant_of(key)), self._lane(following), key)
            return
        del line[0]
        following.behind -= 1
        if not following.behind:
            self._make_ready(self._find(self._tenant_of(key)), Lane.SHORT, following)

    def _find(self, name: Hashable) -> _Tenant[K, S]:
        tenant = self._tenants.get(name)
        if tenant is None:
            tenant = self._tenants[name] = _Tenant(name)
            tenant.credit = self._debts.pop(name, 0)
        return tenant

    def _lane(self, step: S) -> Lane:
        return Lane.LONG if step.length > self._long_turn else Lane.SHORT

    def _make_ready(self, tenant: _Tenant[K, S], lane: Lane, entry: K | Group[K, S], *, first: bool = False) -> None:
        ready = tenant.ready[lane]
        if not ready:
            self._rounds[lane].append(tenant)
        if first:
            ready.appendleft(entry)
        else:
            ready.append(entry)

    def _form(self, lane: Lane, now: float) -> Batch[K, S]:
        tenants, room = self._rounds[lane], self._room(lane, now)
        batch: Batch[K, S] = Batch(lane)
        waiting = self.waiting
        while tenants and batch.sessions < room:
            tenant = tenants[0]
            if tenant.credit <= 0:
                tenant.credit += self._quantum
            self._take_turns(tenant, room, now, batch)
            if not tenant.ready[lane]:
                tenants.popleft()
                tenant.credit = min(tenant.credit, 0)  # credit is for those who wait, a debt is remembered
                if not tenant.waiting:
                    del self._tenants[tenant.name]
                    if tenant.credit:
                        self._debts[tenant.name] = tenant.credit
            elif tenant.credit <= 0:
                tenants.rotate(-1)
        batch.timesteps = waiting - self.waiting
        return batch

    def _room(self, lane: Lane, now: float) -> int:
        """Return how many turns the next batch has, by who is about and who has been."""
        tenants = self._rounds[lane]
        if len(tenants) > 1:
            self._shared_until = now + _SHARED_S
        elif (name := tenants[0].name) != self._alone:
            if self._alone is not None:
                self._shared_until = now + _SHARED_S
            self._alone = name
        if now < self._shared_until:
            return min(self._max_sessions, _SHARED)
        self._debts.clear()  # there is nobody to whom anything is owed
        return self._max_sessions

    def _take_turns(self, tenant: _Tenant[K, S], room: int, now: float, batch: Batch[K, S]) -> None:
        """Let a tenant take turns while it has credit."""
        ready = tenant.ready[batch.lane]
        while ready and tenant.credit > 0 and batch.sessions < room:
            entry = ready.popleft()
            waiting = self.waiting
            if isinstance(entry, Group):
                most = room - batch.sessions
                if len(self._rounds[batch.lane]) > 1:
                    most = min(most, tenant.credit)
                self._take_part(entry, most, now, batch)
                if entry.taken < len(entry):
                    ready.appendleft(entry)
            elif steps := self._next_steps(self._lines[entry], batch.lane, now, batch.expired):
                batch.turns.append(Turn(entry, steps))
                batch.sessions += 1
            else:
                batch.idle.append(entry)
            gone = waiting - self.waiting
            tenant.waiting -= gone
            tenant.credit -= gone

    def _take_part(self, group: Group[K, S], most: int, now: float, batch: Batch[K, S]) -> None:
        """Take the timesteps of at most so many sessions of a group, or all that is left of one that is too late."""
        late = group.deadline < now
        part = Part(group, group.taken, len(group) if late else min(group.taken + most, len(group)))
        group.taken = part.stop
        if group.taken == len(group):
            del self._groups[group]
        self.waiting -= len(part)
        if late:
            batch.expired += part.steps()
            batch.idle += part.keys
        else:
            batch.parts.append(part)
            batch.sessions += len(part)

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
