"""The life of a session outside of its timesteps: opened, shown, listed, reset, forked, carried elsewhere, deleted."""

import secrets
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from service.core import record
from service.core.columns import Floats, Layout
from service.core.errors import (
    InvalidRecord,
    InvalidRequest,
    ModelMismatch,
    NonFiniteOutput,
    SessionExists,
    SessionNotFound,
)
from service.core.ports import Model, Models, Page, StateStore
from service.core.session import Session, SessionKey, Values
from service.core.timestep import rows
from service.engine import Engine
from service.planner import not_found
from service.quotas import Quota
from service.registry import Registry
from service.runner import all_finite, unix_ms

_MAX_STEP = 2**52
"""What a record may say that it has consumed. Beyond twice that, numbers in JSON are no longer exact."""


class Opened(NamedTuple):
    """A session that is there now, and whether it was not before."""

    session: Session
    created: bool


class Sessions:
    """Opens and keeps sessions. Times to live are in seconds. Without a `quota`, a tenant may have any number."""

    def __init__(
        self,
        store: StateStore,
        models: Models,
        engine: Engine,
        *,
        default_ttl_s: int,
        max_ttl_s: int,
        max_history: int,
        quota: Quota | None = None,
    ) -> None:
        self._registry = Registry(store, engine.forget, quota)
        self._models = models
        self._engine = engine
        self._default_ttl_s = default_ttl_s
        self._max_ttl_s = max_ttl_s
        self._max_history = max_history

    async def open(
        self,
        key: SessionKey,
        model: str,
        version: str | None = None,
        ttl_s: int | None = None,
        history: Values | None = None,
    ) -> Opened:
        """Open a session, or resume the one of that name; its own state wins over `history` then.

        Raises `ModelNotFound`, `InvalidRequest`, `InvalidTimestep` for the history, `ModelMismatch` where the session
        there belongs to another model or version than was asked for, and `QuotaExceeded`.
        """
        wanted = self._models.find(model, version)
        if (stored := await self._registry.find(key)) is None:
            session = _fresh(wanted, self._ttl(ttl_s))
            if (stored := await self._registry.admit(key)) is None:
                session = await self._primed(key, session, wanted, history)
                if (stored := await self._registry.create(key, session)) is None:
                    return Opened(session, created=True)
        self._require_model(stored, model, version)
        return Opened(stored, created=False)

    async def create(
        self,
        key: SessionKey,
        model: str,
        version: str | None = None,
        ttl_s: int | None = None,
        history: Values | None = None,
    ) -> Session:
        """Open a session under a name that is free. Raises as `open` does, and `SessionExists`."""
        wanted = self._models.find(model, version)
        session = _fresh(wanted, self._ttl(ttl_s))
        _require_free(key, await self._registry.admit(key))
        session = await self._primed(key, session, wanted, history)
        _require_free(key, await self._registry.create(key, session))
        return session

    async def get(self, key: SessionKey) -> Session:
        """Return a session. Raises `SessionNotFound`."""
        if (session := await self._registry.find(key)) is None:
            raise not_found(key)
        return session

    async def list(self, tenant: str, model: str | None, cursor: str | None, limit: int) -> Page:
        return await self._registry.list(tenant, model, cursor, limit)

    async def delete(self, key: SessionKey) -> None:
        """Forget a session. Raises `SessionNotFound`."""
        if not await self._registry.delete(key):
            raise not_found(key)

    async def reset(self, key: SessionKey) -> Session:
        """Set a session back to before its first timestep. Raises `SessionNotFound` and `ModelMismatch`."""
        session = await self.get(key)
        model = self._models.holding(session.model)
        return await self._registry.replace(key, session, _fresh(model, session.ttl_s))

    async def fork(self, key: SessionKey, new: SessionKey, ttl_s: int | None = None) -> Session:
        """Copy a session to a name that is free. Raises `SessionNotFound`, `SessionExists` and `QuotaExceeded`."""
        source = await self.get(key)
        copy = _anew(source, source.ttl_s if ttl_s is None else self._ttl(ttl_s))
        _require_free(new, await self._registry.put(new, copy))
        return copy

    async def export(self, key: SessionKey) -> bytes:
        """Return a session's record. Raises `SessionNotFound`."""
        return record.encode(await self.get(key))

    async def restore(self, key: SessionKey, content: bytes) -> Opened:
        """Put a session where a record says, whether one is there or not.

        Raises `InvalidRecord`, `ModelMismatch` where the very file that computed its state is not served, and
        `QuotaExceeded`.
        """
        session = record.decode(content)
        Layout(session.model, self._models.holding(session.model).spec).require(session)
        if session.step > _MAX_STEP:
            raise InvalidRecord(f"the record's step {session.step} is beyond {_MAX_STEP}")
        session = _anew(session, self._ttl(session.ttl_s))
        while (stored := await self._registry.put(key, session)) is not None:
            with suppress(SessionNotFound):  # it has gone since: the name is free now
                return Opened(await self._registry.replace(key, stored, session), created=False)
        return Opened(session, created=True)

    async def _primed(self, key: SessionKey, session: Session, model: Model, history: Values | None) -> Session:
        """Return a session that was admitted as it is to be kept: primed with its history in one run, if it has any."""
        if history is None:
            return session
        try:
            return await self._after(session, model, history)
        except BaseException:
            await self._registry.give_up(key)
            raise

    async def _after(self, session: Session, model: Model, history: Values) -> Session:
        """Return a fresh session as it is after a history."""
        if not 0 < len(history) <= self._max_history:
            raise InvalidRequest(f"history has {len(history)} timesteps; 1 to {self._max_history} are taken")
        x: Floats = rows(model.spec, history, "history")
        outputs, state = await self._engine.run(model, x[None], np.zeros((1, model.spec.state_size), np.float32))
        if not all_finite(outputs, state):
            raise NonFiniteOutput("the model has no finite answer to this history; no session was opened")
        return session._replace(step=len(x), state=state[0].tobytes(), outputs=outputs[0, -1].tobytes())

    def _require_model(self, stored: Session, model: str, version: str | None) -> None:
        if stored.model.name != model or version not in (None, stored.model.version):
            raise ModelMismatch(
                f"the session belongs to model {stored.model.name!r} version {stored.model.version}, "
                f"not to {model!r}{f' version {version}' if version else ''}"
            )

    def _ttl(self, ttl_s: int | None) -> int:
        if ttl_s is None:
            return self._default_ttl_s
        if not 1 <= ttl_s <= self._max_ttl_s:
            raise InvalidRequest(f"ttl_s is {ttl_s}; 1 to {self._max_ttl_s} seconds are possible")
        return ttl_s


def _require_free(key: SessionKey, stored: Session | None) -> None:
    if stored is not None:
        raise SessionExists(
            f"there is a session {key.session_id!r} already, of model {stored.model.name!r}, at step {stored.step}",
            current_step=stored.step,
        )


def _fresh(model: Model, ttl_s: int) -> Session:
    return Session(
        model=model.ref,
        epoch=secrets.randbits(64),
        step=0,
        nonce=secrets.randbits(64),
        updated_at_ms=unix_ms(),
        ttl_s=ttl_s,
        state=bytes(4 * model.spec.state_size),
        outputs=b"",
    )


def _anew(session: Session, ttl_s: int) -> Session:
    """Return a copy that nobody confuses with the original."""
    return session._replace(
        epoch=secrets.randbits(64), nonce=secrets.randbits(64), updated_at_ms=unix_ms(), ttl_s=ttl_s
    )
