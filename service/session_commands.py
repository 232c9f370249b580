"""``conveyor sessions``: look at the sessions in Redis, and delete them."""

from typing import Annotated, Any

import typer

from service import logs
from service.core.access import ANYBODY
from service.options import DataDir, RedisUrl, settings_of
from service.settings import Settings

Tenant = Annotated[str, typer.Option(help="Whose sessions.")]

cli = typer.Typer(help="Look at the sessions in Redis, and delete them.", no_args_is_help=True)


@cli.command("list")
def list_sessions(
    redis_url: RedisUrl = None, data_dir: DataDir = None, tenant: Tenant = ANYBODY.tenant, model: str | None = None
) -> None:
    """List all sessions, or those of one model: id, model, step, when they expire."""
    settings = _settings(redis_url=redis_url, data_dir=data_dir)
    from service import stored_sessions

    stored_sessions.print_all(settings, tenant, model)


@cli.command("show")
def show_session(
    session_id: str, redis_url: RedisUrl = None, data_dir: DataDir = None, tenant: Tenant = ANYBODY.tenant
) -> None:
    """Show a session as JSON."""
    settings = _settings(redis_url=redis_url, data_dir=data_dir)
    from service import stored_sessions

    stored_sessions.print_one(settings, tenant, session_id)


@cli.command("delete")
def delete_session(
    session_id: str, redis_url: RedisUrl = None, data_dir: DataDir = None, tenant: Tenant = ANYBODY.tenant
) -> None:
    """Delete a session."""
    settings = _settings(redis_url=redis_url, data_dir=data_dir)
    from service import stored_sessions

    stored_sessions.delete(settings, tenant, session_id)


def _settings(**options: Any) -> Settings:
    settings = settings_of(**options)
    logs.configure("error", settings.log_format)
    return settings
