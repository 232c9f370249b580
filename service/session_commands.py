"""``conveyor sessions``: look at the sessions in Redis, and delete them."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Annotated

import typer

from service import logs
from service.api.schemas import session_info
from service.beside import beside
from service.core.access import ANYBODY
from service.core.errors import ConveyorError, InvalidRecord, Unavailable
from service.core.ports import StateStore
from service.core.record import decode
from service.core.session import SessionKey
from service.options import DataDir, RedisUrl, fail, settings_of
from service.stores import StartupError, open_store

Tenant = Annotated[str, typer.Option(help="Whose sessions.")]

cli = typer.Typer(help="Look at the sessions in Redis, and delete them.", no_args_is_help=True)


@cli.command("list")
def list_sessions(
    redis_url: RedisUrl = None, data_dir: DataDir = None, tenant: Tenant = ANYBODY.tenant, model: str | None = None
) -> None:
    """List all sessions, or those of one model: id, model, step, when they expire."""

    async def run(store: StateStore) -> None:
        cursor = None
        while True:
            page = await store.scan(tenant, model, cursor, 1000)
            for session_id, session in page.sessions:
                info = session_info(SessionKey(tenant, session_id), session)
                typer.echo(f"{session_id}\t{info.model}/{info.version}\t{info.step}\t{info.expires_at:%FT%TZ}")
            if (cursor := page.cursor) is None:
                return

    _with_store(run, redis_url=redis_url, data_dir=data_dir)


@cli.command("show")
def show_session(
    session_id: str, redis_url: RedisUrl = None, data_dir: DataDir = None, tenant: Tenant = ANYBODY.tenant
) -> None:
    """Show a session as JSON."""

    async def run(store: StateStore) -> None:
        (record,) = await store.load([SessionKey(tenant, session_id)])
        if isinstance(record, ConveyorError):
            raise record
        if record is None:
            fail(f"there is no session {session_id!r}")
        try:
            session = decode(record)
        except InvalidRecord as error:
            fail(str(error))
        typer.echo(session_info(SessionKey(tenant, session_id), session).model_dump_json(exclude_none=True, indent=2))

    _with_store(run, redis_url=redis_url, data_dir=data_dir)


@cli.command("delete")
def delete_session(
    session_id: str, redis_url: RedisUrl = None, data_dir: DataDir = None, tenant: Tenant = ANYBODY.tenant
) -> None:
    """Delete a session."""

    async def run(store: StateStore) -> None:
        key = SessionKey(tenant, session_id)
        existed = await store.delete(key)
        with suppress(Unavailable):  # it is deleted, and its place is found free a little later
            await beside(store).places.release(key)
        if not existed:
            fail(f"there is no session {session_id!r}")
        typer.echo(f"deleted {session_id}")

    _with_store(run, redis_url=redis_url, data_dir=data_dir)


def _with_store(run: Callable[[StateStore], Awaitable[None]], **options: object) -> None:
    settings = settings_of(**options)
    logs.configure("error", settings.log_format)

    async def with_store() -> None:
        async with AsyncExitStack() as stack:
            await run(await open_store(settings, stack, share=True))

    try:
        asyncio.run(with_store())
    except (StartupError, ConveyorError) as error:
        fail(str(error))
