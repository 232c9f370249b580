"""The entrance to the engine: who may submit a step, who waits for that, and who is refused.

To refuse a request is work, most of it to read it and to write the answer. A process that refuses all that is too much
does little else. So refusing has a bounded share of the time, and whoever is neither let in nor refused waits in the
lobby, with one message of each connection; what is behind it waits in the connection.
"""

import asyncio
from collections import Counter
from typing import Protocol

from service.core.admission import Admission
from service.core.batch import BatchFormer
from service.core.errors import Overloaded
from service.core.lobby import Lobby
from service.core.ports import Clock, Observer
from service.core.session import SessionKey
from service.pending import Pending

_ALIKE = 16
"""Steps that are refused with one and the same error. To make one is a good part of what it costs to refuse."""


class Waiter(Protocol):
    """Somebody with a step to submit, who waits until there is room for it."""

    def let_in(self) -> None:
        """Go on: there is room. Called once, unless they leave. May not raise."""
        ...


class Asker(Waiter, Protocol):
    """One who may be refused instead."""

    def turn_away(self, refusal: Overloaded) -> None:
        """Tell of a refusal. Called once, in place of `let_in`. May not raise."""
        ...


class Entrance:
    """See the module. `limit` of what may wait is the admission's, and so is how often somebody may be refused."""

    def __init__(
        self, former: BatchFormer[SessionKey, Pending], admission: Admission, observer: Observer, clock: Clock
    ) -> None:
        self._former = former
        self._admission = admission
        self._observer = observer
        self._clock = clock
        self._lobby: Lobby[str, Asker, Waiter] = Lobby()
        # Who was let in and has not submitted yet: a request does so in the next pass of the event loop.
        self._coming = 0
        self._coming_of: Counter[str] = Counter()
        self._refusal: Overloaded | None = None
        self._refused = 0
        self._loop = asyncio.get_running_loop()

    @property
    def waiting(self) -> int:
        """How many wait to be let in."""
        return len(self._lobby)

    def has_room(self, tenant: str) -> bool:
        """Return whether a tenant's next step may wait in the engine.

        Where many tenants' steps wait, each may have its share of the queue waiting, even if the others have filled it.
        """
        former, limit = self._former, self._admission.limit
        if former.waiting + self._coming < limit:
            return True
        tenants = former.tenants(tenant)
        return tenants > 1 and former.waiting_of(tenant) + self._coming_of[tenant] < limit // tenants

    def ask(self, tenant: str, asker: Asker) -> None:
        """Let somebody for whom there is no room wait, or refuse them at once where nobody else is to be before."""
        now = self._clock()
        self._admission.reached(now)
        if not self._lobby and self._admission.may_refuse(now):
            asker.turn_away(self.refuse())
        else:
            self._lobby.ask(tenant, asker)

    def wait(self, tenant: str, waiter: Waiter) -> None:
        """Let somebody for whom there is no room wait."""
        self._admission.reached(self._clock())
        self._lobby.wait(tenant, waiter)

    def leave(self, tenant: str, waiter: Waiter) -> None:
        """Forget somebody who waits."""
        self._lobby.leave(tenant, waiter)

    def admit(self, tenant: str) -> bool:
        """Return whether a tenant's next step may be submitted now, by somebody who was let in or because of room."""
        if self._coming and self._coming_of[tenant]:
            self._coming_of[tenant] -= 1
            self._coming -= 1
            return True
        return self.has_room(tenant)

    def attend(self, now: float, *, formed: bool) -> None:
        """Let in those for whom there is room; where a batch was formed, refuse of the others as many as may be."""
        if formed:
            self._admission.taken(self._former.waiting + len(self._lobby), now)
            if self._refused:
                self._refusal = self._next_refusal()
        if self._lobby:
            self._let_in()
        while formed and self._lobby and self._admission.may_refuse(now):
            if (oldest := self._lobby.oldest()) is None:
                return
            oldest.turn_away(self.refuse())

    def _let_in(self) -> None:
        while (found := self._lobby.next(self.has_room)) is not None:
            tenant, waiter = found
            waiting = self._former.waiting
            waiter.let_in()
            if self._former.waiting == waiting:
                self._coming += 1
                self._coming_of[tenant] += 1
        if self._coming:
            self._loop.call_soon(self._forget_coming)  # who has not come by then has nothing to submit

    def _forget_coming(self) -> None:
        self._coming = 0
        self._coming_of.clear()

    def open(self) -> None:
        """Let in everybody who waits."""
        for _ in range(len(self._lobby)):  # once each, if they wait again
            if (found := self._lobby.next(lambda _: True)) is not None:
                found[1].let_in()

    def refuse(self) -> Overloaded:
        """Return why a step is refused, and count it. Many steps may get the same error."""
        if self._refusal is None or self._refused % _ALIKE == 0:
            self._refusal = self._next_refusal()
        self._refused += 1
        return self._refusal

    def _next_refusal(self) -> Overloaded:
        """Count the steps that were refused since the last time; return the error for the next ones."""
        retry_after_s = self._admission.refused(self._refused, self._clock())
        if self._refused:
            self._observer.refused(Overloaded.code, self._refused)
        self._refused = 0
        return Overloaded("more is sent to this process than it can do", retry_after_s=round(retry_after_s, 2))


class Caller:
    """A coroutine that waits at the entrance, by `admitted`."""

    def __init__(self) -> None:
        self.admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def let_in(self) -> None:
        if not self.admitted.done():
            self.admitted.set_result(None)

    def turn_away(self, refusal: Overloaded) -> None:
        if not self.admitted.done():
            self.admitted.set_exception(refusal.with_traceback(None))
