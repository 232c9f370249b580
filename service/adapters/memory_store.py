"""`StateStore` in the process: for trying things out. Nothing is shared, nothing outlives the process."""

import time
from collections.abc import Callable, Sequence

from service.core.errors import ConveyorError, InvalidRecord
from service.core.ports import Commit, Lost, Page, StoreHealth
from service.core.session import Session, SessionKey


class MemoryStore:
    """See `service.core.ports.StateStore`. `clock` is Unix time in seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._sessions: dict[SessionKey, tuple[Session, float]] = {}

    async def load(self, keys: Sequence[SessionKey]) -> list[Session | InvalidRecord | None]:
        return [self._live(key) for key in keys]

    async def commit(self, commits: Sequence[Commit]) -> list[Lost | ConveyorError | None]:
        return [self._commit(commit) for commit in commits]

    async def create(self, key: SessionKey, session: Session) -> Session | None:
        if (stored := self._live(key)) is None:
            self._put(key, session)
        return stored

    async def delete(self, key: SessionKey) -> bool:
        existed = self._live(key) is not None
        self._sessions.pop(key, None)
        return existed

    async def scan(self, tenant: str, model: str | None, cursor: str | None, limit: int) -> Page:
        ids = sorted(key.session_id for key in self._sessions if key.tenant == tenant)
        after = [id_ for id_ in ids if cursor is None or id_ > cursor]
        found = [(id_, session) for id_ in after if (session := self._live(SessionKey(tenant, id_)))]
        found = [(id_, session) for id_, session in found if model in (None, session.model.name)]
        return Page(found[:limit], found[limit - 1][0] if len(found) > limit else None)

    async def health(self) -> StoreHealth:
        return StoreHealth(
            "the memory of this process",
            ["sessions are kept in this process alone: a restart loses them and no other process sees them"],
        )

    async def close(self) -> None:
        self._sessions.clear()

    def _live(self, key: SessionKey) -> Session | None:
        session, expires = self._sessions.get(key, (None, 0.0))
        if session is not None and expires <= self._clock():
            del self._sessions[key]
            return None
        return session

    def _put(self, key: SessionKey, session: Session) -> None:
        self._sessions[key] = (session, self._clock() + session.ttl_s)

    def _commit(self, commit: Commit) -> Lost | None:
        stored = self._live(commit.key)
        if stored is None or (stored.epoch, stored.step) != (commit.epoch, commit.step):
            return Lost(stored)
        self._put(commit.key, commit.session)
        return None
