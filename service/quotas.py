"""The quota of sessions: whether a tenant may have one more, and who looks which of them are still there."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary

import structlog

from service.core.errors import ConveyorError, QuotaExceeded, Unavailable
from service.core.ports import StateStore
from service.core.quota import BEING_MADE_S, LOOK_WITHIN_S, Look, Place, Places
from service.core.record import readable
from service.core.session import SessionKey

log = structlog.get_logger(__name__)


class Quota:
    """Each tenant may have `limit` sessions. `clock` is Unix time, in seconds."""

    def __init__(self, limit: int, places: Places, store: StateStore, clock: Callable[[], float] = time.time) -> None:
        self._limit = limit
        self._places = places
        self._store = store
        self._clock = clock
        self._looking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def admit(self, key: SessionKey) -> None:
        """Take a place for a session that is about to be made. Raises `QuotaExceeded`, and `Unavailable`."""
        due = await self._places.take(key, self._limit)
        if due is None:
            return
        # Of any number that ask at once one looks: the others would read the same sessions.
        async with self._looking.setdefault(key.tenant, asyncio.Lock()):
            while (due := await self._places.take(key, self._limit)) is not None:
                if not due:
                    raise QuotaExceeded(
                        f"{self._limit} sessions are allowed, and there are as many: delete some, or let them expire",
                        limit=self._limit,
                    )
                await self._look(key.tenant, due)

    async def made(self, key: SessionKey, ttl_s: int) -> None:
        """Be told that a session is there."""
        await self._tell(self._places.keep(key, min(ttl_s, LOOK_WITHIN_S)))

    async def not_made(self, key: SessionKey) -> None:
        """Be told that nothing came of a session that was admitted."""
        await self._tell(self._places.give_up(key))

    async def deleted(self, key: SessionKey) -> None:
        await self._tell(self._places.release(key))

    async def _look(self, tenant: str, due: list[Place]) -> None:
        found = await self._store.load([SessionKey(tenant, place.session_id) for place in due])
        looks = [Look(place, self._look_again_in(record)) for place, record in zip(due, found, strict=True)]
        await self._places.settle(tenant, looks)

    def _look_again_in(self, record: bytes | ConveyorError | None) -> int | None:
        if record is None:
            return None
        if isinstance(record, ConveyorError):
            return BEING_MADE_S  # nobody can tell at the moment
        session = readable(record, None)
        left_s = LOOK_WITHIN_S if session is None else int(session.expires_at_ms / 1000 - self._clock()) + 1
        return min(max(left_s, 1), LOOK_WITHIN_S)

    async def _tell(self, telling: Awaitable[None]) -> None:
        """Tell of something that has been done, and cannot fail any more for not being counted yet."""
        try:
            await telling
        except Unavailable as error:
            log.debug("a session was counted late", reason=error.detail)
