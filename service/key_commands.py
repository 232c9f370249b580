"""``conveyor keys``: make, list and revoke API keys. A running service takes notice by itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from service.adapters import key_file
from service.adapters.file_lock import FileLock
from service.adapters.key_file import KeyFileError, StoredKey
from service.core.access import ANYBODY, Scope
from service.options import fail, settings_of

ApiKeysFile = Annotated[Path | None, typer.Option("--api-keys", help="File of API keys: CONVEYOR_API_KEYS.")]

cli = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)


@cli.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="What the key is for; several may have one name.")],
    scope: Annotated[list[Scope], typer.Option(help="What the key may do; give it once for each scope.")],
    tenant: Annotated[str, typer.Option(help="Whose sessions.")] = ANYBODY.tenant,
    expires_in_days: Annotated[float | None, typer.Option(min=0, help="Unset: never.")] = None,
    rate: Annotated[float | None, typer.Option(help="Timesteps per second, where it has a limit of its own.")] = None,
    burst: Annotated[int | None, typer.Option(help="Timesteps at once, with --rate.")] = None,
    api_keys: ApiKeysFile = None,
) -> None:
    """Make a key, and print it: this once, as nobody can find it in the file."""
    now = datetime.now(UTC).replace(microsecond=0)
    drawn = key_file.draw()
    try:
        key = msgspec.convert(
            {
                "id": drawn.id,
                "sha256": drawn.sha256,
                "tenant": tenant,
                "name": name,
                "scopes": sorted(set(scope)),
                "created_at": now,
                "expires_at": None if expires_in_days is None else now + timedelta(days=expires_in_days),
                "rate_per_s": rate,
                "burst": burst,
            },
            StoredKey,
        )
    except (msgspec.ValidationError, OverflowError) as error:
        fail(f"no such key can be made: {error}")
    with _keys_of(api_keys) as keys:
        keys.append(key)
    typer.echo(drawn.key)


@cli.command("list")
def list_keys(api_keys: ApiKeysFile = None) -> None:
    """List the keys: id, tenant, name, scopes, when they expire."""
    now = datetime.now(UTC)
    for key in _read(_path(api_keys)):
        expires = "never" if key.expires_at is None else f"{key.expires_at:%FT%TZ}"
        expired = " (expired)" if key.expires_at is not None and key.expires_at <= now else ""
        scopes = ",".join(sorted(key.scopes))
        typer.echo(f"{key_file.PREFIX}{key.id}\t{key.tenant}\t{key.name}\t{scopes}\t{expires}{expired}")


@cli.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="What list shows: the part of a key up to its secret.")],
    api_keys: ApiKeysFile = None,
) -> None:
    """Revoke a key. Services let it in no more within seconds, and close the sockets that it has open."""
    bare = key_id.removeprefix(key_file.PREFIX).partition("_")[0]
    with _keys_of(api_keys) as keys:
        left = [key for key in keys if key.id != bare]
        if len(left) == len(keys):
            fail(f"there is no key with the id {key_file.PREFIX}{bare}")
        keys[:] = left
    typer.echo(f"revoked {key_file.PREFIX}{bare}")


@contextmanager
def _keys_of(given: Path | None) -> Iterator[list[StoredKey]]:
    """Hand out the keys of the file, to be changed; they are written back at the end. One command at a time."""
    path = _path(given)
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        if not lock.acquire():
            fail(f"another command is changing {path}; try again")
        try:
            keys = _read(path) if path.exists() else []
            yield keys
            key_file.write(path, keys)
        finally:
            lock.close()
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}")


def _read(path: Path) -> list[StoredKey]:
    try:
        return key_file.read(path)
    except FileNotFoundError:
        fail(f"there is no file of API keys at {path}. Make it with conveyor keys create")
    except KeyFileError as error:
        fail(str(error))


def _path(given: Path | None) -> Path:
    path = settings_of(api_keys=given).api_keys
    if path is None:
        fail("which file of API keys is meant? Say it with --api-keys or CONVEYOR_API_KEYS")
    return path
