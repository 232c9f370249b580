"""What ``conveyor sessions`` does with the sessions in Redis. What cannot be done ends with a clear error."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress

import typer

from service import logs
from service.api.schemas import session_info
from service.beside import beside
from service.core.errors import ConveyorError, InvalidRecord, Unavailable
from service.core.ports import StateStore
from service.core.record import decode
from service.core.session import SessionKey
from service.options import fail
from service.settings import Settings
from service.stores import StartupError, open_store


def print_all(settings: Settings, tenant: str, model: str | None) -> None:
    """Print a line for each session of a tenant: id, model, step, when it expires."""

    async def run(store: StateStore) -> None:
        cursor = None
        while True:
            page = await store.scan(tenant, model, cursor, 1000)
            for session_id, session in page.sessions:
                info = session_info(SessionKey(tenant, session_id), session)
                typer.echo(f"{session_id}\t{info.model}/{info.version}\t{info.step}\t{info.expires_at:%FT%TZ}")
            if (cursor := page.cursor) is None:
                return

    _with_store(run, settings)


def print_one(settings: Settings, tenant: str, session_id: str) -> None:
    """Print a session as JSON."""
    key = SessionKey(tenant, session_id)

    async def run(store: StateStore) -> None:
        (record,) = await store.load([key])
        if isinstance(record, ConveyorError):
            raise record
        if record is None:
            fail(f"there is no session {session_id!r}")
        try:
            session = decode(record)
        except InvalidRecord as error:
            fail(str(error))
        typer.echo(session_info(key, session).model_dump_json(exclude_none=True, indent=2))

    _with_store(run, settings)


def delete(settings: Settings, tenant: str, session_id: str) -> None:
    """Delete a session."""
    key = SessionKey(tenant, session_id)

    async def run(store: StateStore) -> None:
        existed = await store.delete(key)
        with suppress(Unavailable):  # it is deleted, and its place is found free a little later
            await beside(store).places.release(key)
        if not existed:
            fail(f"there is no session {session_id!r}")
        typer.echo(f"deleted {session_id}")

    _with_store(run, settings)


def _with_store(run: Callable[[StateStore], Awaitable[None]], settings: Settings) -> None:
    logs.configure("error", settings.log_format)

    async def with_store() -> None:
        async with AsyncExitStack() as stack:
            await run(await open_store(settings, stack, share=True))

    try:
        asyncio.run(with_store())
    except (StartupError, ConveyorError) as error:
        fail(str(error))
