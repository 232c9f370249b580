"""A store that fails as the network and Redis do, in front of one that works."""

import asyncio
from collections import deque
from collections.abc import Sequence
from enum import Enum

from service.adapters.redis_records import verdict
from service.core.errors import ConveyorError, OutcomeUnknown, StoreFull, StoreUnavailable
from service.core.ports import Commit, Lost, Page, StateStore, StoreHealth
from service.core.session import SessionKey


class Fate(Enum):
    """What becomes of one exchange with the store."""

    FINE = "fine"
    AWAY = "nothing was sent"
    REQUEST_LOST = "sent and never seen, which nobody knows"
    REPLY_LOST = "done, which nobody knows"
    REPEATED = "done, its reply lost, and sent again"
    FULL = "refused for each key by a store without memory"
    REFUSED = "refused for each key by a store that takes no writes"
    DEFECT = "an exception that no store should raise"


class FaultyStore:
    """See `service.core.ports.StateStore`. Each exchange meets the next of the `fates`; without one, all is well.

    Commits arrive one after the other. Each takes some `passes` of the event loop to the store, and some back.
    """

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self.fates: deque[Fate] = deque()
        self.passes = 3, 3
        self._order = asyncio.Lock()

    async def load(self, keys: Sequence[SessionKey]) -> list[bytes | None]:
        self._read()
        return await self._store.load(keys)

    async def commit(self, commits: Sequence[Commit]) -> list[Lost | ConveyorError | None]:
        before, after = self.passes
        fate = self._written()
        if fate in (Fate.FULL, Fate.REFUSED):
            return [_refusal(fate) for _ in commits]
        async with self._order:
            await _pass(before)
            verdicts = await self._store.commit(commits)
        await _pass(after)
        if fate is Fate.REPEATED:
            return await self._repeat(commits)
        if fate is Fate.REPLY_LOST:
            raise OutcomeUnknown("the reply was lost")
        return verdicts

    async def _repeat(self, commits: Sequence[Commit]) -> list[Lost | ConveyorError | None]:
        """Commit a second time, as the adapters do, and read the verdicts as they do."""
        verdicts = await self._store.commit(commits)
        return [
            verdict(made.current, commit.version, commit.record, repeated=True)
            if isinstance(made, Lost) and made.current is not None
            else made
            for made, commit in zip(verdicts, commits, strict=True)
        ]

    def prefetch(self, keys: Sequence[SessionKey]) -> None:
        self._store.prefetch(keys)

    async def create(self, key: SessionKey, record: bytes) -> bytes | None:
        fate = self._written()
        if fate in (Fate.FULL, Fate.REFUSED):
            raise _refusal(fate)
        stored = await self._store.create(key, record)
        if fate is Fate.REPLY_LOST:
            raise OutcomeUnknown("the reply was lost")
        return stored

    async def delete(self, key: SessionKey) -> bool:
        fate = self._written()
        if fate in (Fate.FULL, Fate.REFUSED):
            raise StoreUnavailable("it takes no writes")
        existed = await self._store.delete(key)
        if fate is Fate.REPLY_LOST:
            raise OutcomeUnknown("the reply was lost")
        return existed

    async def scan(self, tenant: str, model: str | None, cursor: str | None, limit: int) -> Page:
        self._read()
        return await self._store.scan(tenant, model, cursor, limit)

    async def health(self) -> StoreHealth:
        self._read()
        return await self._store.health()

    async def close(self) -> None:
        await self._store.close()

    def _next(self) -> Fate:
        fate = self.fates.popleft() if self.fates else Fate.FINE
        if fate is Fate.DEFECT:
            raise ZeroDivisionError("a defect of the store")
        if fate is Fate.AWAY:
            raise StoreUnavailable("it is away")
        return fate

    def _read(self) -> None:
        if self._next() is not Fate.FINE:
            raise StoreUnavailable("it did not answer")  # where reading fails, nothing is in doubt

    def _written(self) -> Fate:
        fate = self._next()
        if fate is Fate.REQUEST_LOST:
            raise OutcomeUnknown("the request was lost")
        return fate


async def _pass(passes: int) -> None:
    for _ in range(passes):
        await asyncio.sleep(0)


def _refusal(fate: Fate) -> StoreFull | StoreUnavailable:
    return StoreFull("out of memory") if fate is Fate.FULL else StoreUnavailable("it takes no writes")
