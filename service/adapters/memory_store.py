"""`StateStore` in the process: for trying things out. Nothing is shared, nothing outlives the process."""

import time
from collections.abc import Callable, Sequence

from service.core.errors import ConveyorError
from service.core.ports import Commit, Lost, Page, StoreHealth
from service.core.record import VERSION_SLICE, readable, ttl_s_of
from service.core.session import SessionKey


class MemoryStore:
    """See `service.core.ports.StateStore`. `clock` is Unix time in seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._records: dict[SessionKey, tuple[bytes, float]] = {}

    async def load(self, keys: Sequence[SessionKey]) -> list[bytes | None]:
        return [self._live(key) for key in keys]

    async def commit(self, commits: Sequence[Commit]) -> list[Lost | ConveyorError | None]:
        return [self._commit(commit) for commit in commits]

    def prefetch(self, keys: Sequence[SessionKey]) -> None:
        """Do nothing: they are at hand."""

    async def create(self, key: SessionKey, record: bytes) -> bytes | None:
        if (stored := self._live(key)) is None:
            self._put(key, record)
        return stored

    async def delete(self, key: SessionKey) -> bool:
        existed = self._live(key) is not None
        self._records.pop(key, None)
        return existed

    async def scan(self, tenant: str, model: str | None, cursor: str | None, limit: int) -> Page:
        ids = sorted(key.session_id for key in self._records if key.tenant == tenant)
        after = [id_ for id_ in ids if cursor is None or id_ > cursor]
        records = [(id_, record) for id_ in after if (record := self._live(SessionKey(tenant, id_)))]
        found = [(id_, session) for id_, record in records if (session := readable(record, model))]
        return Page(found[:limit], found[limit - 1][0] if len(found) > limit else None)

    async def health(self) -> StoreHealth:
        return StoreHealth(
            "the memory of this process",
            ["sessions are kept in this process alone: a restart loses them and no other process sees them"],
        )

    async def close(self) -> None:
        self._records.clear()

    def _live(self, key: SessionKey) -> bytes | None:
        record, expires = self._records.get(key, (None, 0.0))
        if record is not None and expires <= self._clock():
            del self._records[key]
            return None
        return record

    def _put(self, key: SessionKey, record: bytes) -> None:
        self._records[key] = (record, self._clock() + ttl_s_of(record))

    def _commit(self, commit: Commit) -> Lost | None:
        stored = self._live(commit.key)
        if stored is None or stored[VERSION_SLICE] != commit.version:
            return Lost(stored)
        self._put(commit.key, commit.record)
        return None
