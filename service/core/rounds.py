"""The rounds of the tenants: whose turn it is to take from what is ready.

Deficit round robin, counted in timesteps. One that has thousands of sessions ready takes no place in a batch from one
that has a few, and what one took ahead of its share is remembered. While several tenants are about, batches are
smaller, because a step that has just missed a batch has to wait for the end of it.

There is a round for each lane; a tenant's credit is one for both.
"""

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from service.core.turn import Lane

E = TypeVar("E")
"""What a tenant has ready."""

_SHARED = 32
"""Turns in a batch while several tenants are about. Beyond so many, a batch gains little by growing."""
_QUANTUM = 16
"""Timesteps that a tenant may take in a round, where batches are not small."""
_SHARED_S = 1.0
"""How long a tenant that was seen is expected to come again, in seconds."""


class Tenant(Generic[E]):
    """A tenant of which something waits: what of it is ready, by lane, and its waiting timesteps.

    `credit` is what it may still take, in timesteps, before it is another's turn. Who adds timesteps counts them in
    `waiting`; the rest is the rounds'.
    """

    __slots__ = ("credit", "name", "ready", "waiting")

    def __init__(self, name: Hashable, credit: int = 0) -> None:
        self.name = name
        self.ready: tuple[deque[E], deque[E]] = (deque(), deque())
        self.waiting = 0
        self.credit = credit


class Rounds(Generic[E]):
    """See the module. A batch has at most `max_turns` turns.

    `ready` are the tenants with something ready, by lane, the first being the next to take its turns: for reading.
    """

    def __init__(self, max_turns: int) -> None:
        self._max_turns = max_turns
        self._quantum = max(1, min(max_turns // 4, _QUANTUM))
        self._tenants: dict[Hashable, Tenant[E]] = {}
        self._debts: dict[Hashable, int] = {}  # credit of tenants of which nothing waits
        self.ready: tuple[deque[Tenant[E]], deque[Tenant[E]]] = (deque(), deque())
        self._alone: Hashable = None  # who had the latest batch to itself
        self._shared_until = float("-inf")

    def __len__(self) -> int:
        """Return how many tenants have something waiting."""
        return len(self._tenants)

    def get(self, name: Hashable) -> Tenant[E] | None:
        """Return a tenant, if something of it waits."""
        return self._tenants.get(name)

    def enter(self, name: Hashable) -> Tenant[E]:
        """Return a tenant of which something is about to wait."""
        tenant = self._tenants.get(name)
        if tenant is None:
            tenant = self._tenants[name] = Tenant(name, self._debts.pop(name, 0))
        return tenant

    def make_ready(self, tenant: Tenant[E], lane: Lane, entry: E, *, first: bool = False) -> None:
        """Put something behind what else a tenant has ready, or before it."""
        ready = tenant.ready[lane]
        if not ready:
            self.ready[lane].append(tenant)
        if first:
            ready.appendleft(entry)
        else:
            ready.append(entry)

    def withdraw(self, tenant: Tenant[E], lane: Lane, entry: E) -> None:
        """Take back what was made ready and has not been taken."""
        ready = tenant.ready[lane]
        ready.remove(entry)
        if not ready:
            self.ready[lane].remove(tenant)

    def room(self, lane: Lane, now: float) -> int:
        """Return how many turns the next batch has, by who is about and who has been. Something is ready."""
        tenants = self.ready[lane]
        if len(tenants) > 1:
            self._shared_until = now + _SHARED_S
        elif (name := tenants[0].name) != self._alone:
            if self._alone is not None:
                self._shared_until = now + _SHARED_S
            self._alone = name
        if now < self._shared_until:
            return min(self._max_turns, _SHARED)
        self._debts.clear()  # there is nobody to whom anything is owed
        return self._max_turns

    def next(self, lane: Lane) -> Tenant[E]:
        """Return who is to take from what it has ready while it has credit, if it has any. Something is ready."""
        tenants = self.ready[lane]
        tenant = tenants[0]
        if tenant.credit <= 0:
            # Alone, it would go round and round until its debt is worked off.
            rounds = 1 if len(tenants) > 1 else -tenant.credit // self._quantum + 1
            tenant.credit += rounds * self._quantum
        return tenant

    def took(self, lane: Lane, timesteps: int) -> None:
        """Say how much it has taken, who was `next`. It goes on where it has credit left, and anything ready."""
        tenants = self.ready[lane]
        tenant = tenants[0]
        tenant.waiting -= timesteps
        tenant.credit -= timesteps
        if not tenant.ready[lane]:
            tenants.popleft()
            if tenant.credit > 0:
                tenant.credit = 0  # credit is for those who wait, a debt is remembered
            if not tenant.waiting:
                del self._tenants[tenant.name]
                if tenant.credit:
                    self._debts[tenant.name] = tenant.credit
        elif tenant.credit <= 0:
            tenants.rotate(-1)

    def clear(self) -> None:
        """Forget all that waits, and what anybody owes."""
        self._tenants.clear()
        self._debts.clear()
        for tenants in self.ready:
            tenants.clear()
