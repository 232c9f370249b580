"""The file of API keys: who they belong to, what they may do, and a hash of each, never the key.

A key is ``cvy_<id>_<secret>``. The id is public: it finds the key's entry. The secret is 32 random bytes in base64, of
which the file has the SHA-256. What makes passwords need a slow hash is that they can be guessed; nobody guesses 256
random bits, however fast the hash.
"""

import hashlib
import os
import secrets
import stat
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from service.core.access import TENANT, Scope
from service.core.rate import FASTEST, LARGEST, SLOWEST

PREFIX = "cvy_"
_ID_BYTES, _SECRET_BYTES = 8, 32
PUBLIC_LENGTH = len(PREFIX) + 2 * _ID_BYTES + 1
"""Characters of a key that stand before its secret."""


class KeyFileError(ValueError):
    """The file cannot be used; the message says which, why, and what to do."""


class StoredKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the file says of a key. `rate_per_s` and `burst` limit its timesteps where it has a limit of its own."""

    id: Annotated[str, Meta(pattern=rf"\A[0-9a-f]{{{2 * _ID_BYTES}}}\Z")]
    sha256: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    tenant: Annotated[str, Meta(pattern=rf"\A{TENANT.pattern}\Z")]
    name: Annotated[str, Meta(pattern=r"\A[^\x00-\x1f\x7f]{1,100}\Z")]
    scopes: list[Scope]
    created_at: Annotated[datetime, Meta(tz=True)]
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None
    rate_per_s: Annotated[float, Meta(ge=SLOWEST, le=FASTEST)] | None = None
    burst: Annotated[int, Meta(ge=1, le=LARGEST)] | None = None


class KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of the file."""

    keys: list[StoredKey]


class Drawn(NamedTuple):
    """A key as it is told once, and what of it goes into the file."""

    key: str
    id: str
    sha256: str


def draw() -> Drawn:
    """Draw a new key."""
    key_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
    return Drawn(f"{PREFIX}{key_id}_{secret}", key_id, hashlib.sha256(secret.encode()).hexdigest())


def read(path: Path) -> list[StoredKey]:
    """Return the keys in a file. Raises `KeyFileError`, and `FileNotFoundError` where there is none."""
    try:
        keys = msgspec.json.decode(path.read_bytes(), type=KeyFile).keys
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeyFileError(f"the API keys in {path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise KeyFileError(
            f"{path} is not a file of API keys: {error}. It is written by conveyor keys create"
        ) from error
    ids = [key.id for key in keys]
    if twice := {key_id for key_id in ids if ids.count(key_id) > 1}:
        raise KeyFileError(f"{path} is not a file of API keys: it has the id {min(twice)!r} twice")
    return keys


def write(path: Path, keys: Sequence[StoredKey]) -> None:
    """Put keys into a file at once: whoever reads it finds the old ones or the new ones. Raises `OSError`.

    Its mode is 0600. A file that was there keeps its owner and mode, so that the service can still read it.
    """
    content = msgspec.json.format(msgspec.json.encode(KeyFile(list(keys))), indent=2) + b"\n"
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # of mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            with suppress(FileNotFoundError):
                old = path.stat()
                if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                    os.chown(file.fileno(), old.st_uid, old.st_gid)
                os.chmod(file.fileno(), stat.S_IMODE(old.st_mode))  # noqa: PTH101, by descriptor
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
