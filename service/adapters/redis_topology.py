"""Who serves what in a Redis Cluster, as its nodes tell it: when they are asked, and which of them is believed."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from service.adapters.redis_address import Address
from service.adapters.redis_slots import SlotMap
from service.core.errors import StoreUnavailable
from service.core.ports import Clock

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 0.8
"""Between two readings; it doubles as long as they tell nothing new."""


class Rereading:
    """When the map of slots is to be read anew. Pure state: it is handed a clock.

    While a master is down everything speaks against the map, and to read it helps only when another has taken over. A
    redirection is news: the first one for a while is followed up at once, however many failures there were before it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pause_s = FIRST_PAUSE_S
        self._not_before = self._redirected_not_before = clock()
        self._redirected = False
        self.needed = True

    @property
    def due(self) -> bool:
        return self.needed and self._clock() >= self._not_before

    def doubt(self) -> None:
        """Something failed, for whatever reason."""
        self.needed = True

    def redirect(self) -> None:
        """A node has named another one."""
        self.needed = self._redirected = True
        self._not_before = min(self._not_before, self._redirected_not_before)

    def done(self, *, read: bool, changed: bool) -> None:
        """Some node was `read`, or none answered; what it said was new, or not."""
        now = self._clock()
        if self._redirected:
            self._redirected = False
            self._redirected_not_before = now + FIRST_PAUSE_S
        if changed:
            self._pause_s = FIRST_PAUSE_S
        self._not_before = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        self.needed = not read


class Topology:
    """The map of a cluster, read when it is first needed, and anew after anything that speaks against it.

    `servers` are asked, and all masters that are known of; `ask` sends one of them CLUSTER SLOTS and raises
    `StoreUnavailable`. There is one reading at a time. Who has an old map waits for it no longer than `patience_s`.
    """

    def __init__(
        self,
        servers: Sequence[Address],
        ask: Callable[[Address], Awaitable[Any]],
        *,
        patience_s: float,
        clock: Clock = time.monotonic,
    ) -> None:
        self.slots = SlotMap()
        self.why_unknown = "none has been asked"
        """Why the last reading has failed."""
        self._servers = servers
        self._ask = ask
        self._patience_s = patience_s
        self._rereading = Rereading(clock)
        self._reading: asyncio.Task[None] | None = None

    @property
    def doubtful(self) -> bool:
        """Whether something has spoken against the map since it was read."""
        return self._rereading.needed

    def doubt(self) -> None:
        self._rereading.doubt()

    def move(self, slot: int, address: Address) -> None:
        """Be told by a node that another one serves a slot."""
        self.slots.move(slot, address)
        self._rereading.redirect()

    async def refresh(self) -> None:
        """Read the map anew if that is due, or wait for who is doing so."""
        if self._reading is None or self._reading.done():
            if not self._rereading.due:
                return
            self._reading = asyncio.create_task(self._read())
        await asyncio.wait([self._reading], timeout=self._patience_s if self.slots.known else None)
        if self._reading.done():
            self._reading.result()

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        """Ask all known nodes who serves what, and believe the first that answers; keep the old map if none does."""
        asking = [asyncio.create_task(self._slots_by(address)) for address in self._candidates()]
        read = changed = False
        try:
            for answer in asyncio.as_completed(asking):
                try:
                    slots = await answer
                except StoreUnavailable as error:
                    self.why_unknown = error.detail
                else:
                    read, changed = True, slots != self.slots
                    self.slots = slots
                    return
        finally:
            self._rereading.done(read=read, changed=changed)
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    async def _slots_by(self, address: Address) -> SlotMap:
        slots = SlotMap.read(await self._ask(address), address)
        if not slots.known:
            raise StoreUnavailable(f"{address} knows nobody who serves a slot")
        return slots

    def _candidates(self) -> Iterable[Address]:
        return dict.fromkeys([*self.slots.masters(), *self._servers])
