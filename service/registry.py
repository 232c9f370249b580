"""Where sessions are kept: a record each in the store and, where there is a limit to them, a place each."""

from collections.abc import Callable

from service.core import record
from service.core.errors import ConveyorError, QuotaExceeded
from service.core.ports import Commit, Page, StateStore
from service.core.session import Session, SessionKey
from service.planner import not_found
from service.quotas import Quota


class Registry:
    """Keeps sessions. `forget` is told whose record is another than what this process may remember.

    Without a `quota`, a tenant may have any number.
    """

    def __init__(self, store: StateStore, forget: Callable[[SessionKey], None], quota: Quota | None) -> None:
        self._store = store
        self._forget = forget
        self._quota = quota

    async def find(self, key: SessionKey) -> Session | None:
        """Return a session, or None where there is none of that name."""
        (stored,) = await self._store.load([key])
        if isinstance(stored, ConveyorError):
            raise stored
        return None if stored is None else record.decode(stored)

    async def list(self, tenant: str, model: str | None, cursor: str | None, limit: int) -> Page:
        return await self._store.scan(tenant, model, cursor, limit)

    async def put(self, key: SessionKey, session: Session) -> Session | None:
        """Admit and keep a session under a name that is free. Returns None, or the session that is there already."""
        if (stored := await self.admit(key)) is not None:
            return stored
        return await self.create(key, session)

    async def admit(self, key: SessionKey) -> Session | None:
        """Take a place for a session that is about to be made, before anything is computed for it.

        Returns the session of that name, if there is one and no place. Raises `QuotaExceeded`.
        """
        if self._quota is None:
            return None
        try:
            await self._quota.admit(key)
        except QuotaExceeded:
            if (stored := await self.find(key)) is None:
                raise
            return stored  # opened while there was no limit
        return None

    async def give_up(self, key: SessionKey) -> None:
        """Give back the place of a session that was admitted and is not going to be made."""
        if self._quota is not None:
            await self._quota.not_made(key)

    async def create(self, key: SessionKey, session: Session) -> Session | None:
        """Keep a session that was admitted. Returns None, or the session that is there already."""
        stored = await self._store.create(key, record.encode(session))
        there = session if stored is None else record.decode(stored)
        if stored is None:
            self._forget(key)
        if self._quota is not None:
            await self._quota.made(key, there.ttl_s)
        return None if stored is None else there

    async def replace(self, key: SessionKey, current: Session, session: Session) -> Session:
        """Put a session in the place of another, however often that one advances meanwhile.

        Raises `SessionNotFound` where it has gone.
        """
        replaced, new = record.encode(current), record.encode(session)
        while True:
            (verdict,) = await self._store.commit([Commit(key, replaced[record.VERSION_SLICE], new)])
            self._forget(key)
            if verdict is None:
                return session
            if isinstance(verdict, ConveyorError):
                raise verdict
            if verdict.current is None:
                raise not_found(key)
            replaced = verdict.current

    async def delete(self, key: SessionKey) -> bool:
        """Forget a session. Returns whether there was one."""
        self._forget(key)
        existed = await self._store.delete(key)
        if self._quota is not None:
            await self._quota.deleted(key)
        return existed
