"""``conveyor sessions``: look at the sessions in Redis, and delete them."""

from typing import Annotated

import typer

from service.core.access import ANYBODY
from service.options import DataDir, RedisUrl, settings_of

Tenant = Annotated[str, typer.Option(help="Whose sessions.")]

cli = typer.Typer(help="Look at the sessions in Redis, and delete them.", no_args_is_help=True)


@cli.command("list")
def list_sessions(
    redis_url: RedisUrl = None, data_dir: DataDir = None, tenant: Tenant = ANYBODY.tenant, model: str | None = None
) -> None:
    """List all sessions, or those of one model: id, model, step, when they expire."""
    from service import stored_sessions

    stored_sessions.print_all(settings_of(redis_url=redis_url, data_dir=data_dir), tenant, model)


@cli.command("show")
def show_session(
    session_id: str, redis_url: RedisUrl = None, data_dir: DataDir = None, tenant: Tenant = ANYBODY.tenant
) -> None:
    """Show a session as JSON."""
    from service import stored_sessions

    stored_sessions.print_one(settings_of(redis_url=redis_url, data_dir=data_dir), tenant, session_id)


@cli.command("delete")
def delete_session(
    session_id: str, redis_url: RedisUrl = None, data_dir: DataDir = None, tenant: Tenant = ANYBODY.tenant
) -> None:
    """Delete a session."""
    from service import stored_sessions

    stored_sessions.delete(settings_of(redis_url=redis_url, data_dir=data_dir), tenant, session_id)
