"""Who asks, by API keys that stand as hashes in a file."""

import asyncio
import time
from collections.abc import Callable
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path

import structlog

from service.adapters import key_file
from service.adapters.key_file import PREFIX, PUBLIC_LENGTH, KeyFileError, StoredKey
from service.adapters.watched_file import WatchedFile
from service.core.access import Principal
from service.core.errors import Unauthenticated

log = structlog.get_logger(__name__)

_PREFIX = PREFIX.encode()
_Entry = tuple[bytes, Principal]
"""The hash of a secret, and whose it is."""


class ApiKeys:
    """The keys of a file, see `service.adapters.key_file`. An `Authenticator` that never has to wait.

    `clock` is Unix time in seconds.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Read the file. Raises `KeyFileError`."""
        self._file = WatchedFile(path)
        self._clock = clock
        self._file.changed()
        try:
            self._entries = _entries(key_file.read(path))
        except FileNotFoundError as error:
            raise KeyFileError(
                f"there is no file of API keys at {path}. Make it with conveyor keys create, or unset CONVEYOR_API_KEYS"
            ) from error
        if not self._entries:
            log.warning("the file of API keys has none: nobody can use one", file=str(path))

    @staticmethod
    def concern(credential: bytes) -> bool:
        """Whether a credential has the form of an API key."""
        return credential.startswith(_PREFIX)

    def known(self, credential: bytes) -> Principal:
        digest, principal = self._entries.get(credential[:PUBLIC_LENGTH], _NO_ENTRY)
        # For an id that nobody has the same is done, up to the same answer.
        if not compare_digest(sha256(credential[PUBLIC_LENGTH:]).digest(), digest):
            raise Unauthenticated("this API key is not known here: it is mistyped, or was revoked")
        if principal.expires_at is not None and principal.expires_at <= self._clock():
            raise Unauthenticated("this API key has expired")
        return principal

    async def authenticate(self, credential: bytes) -> Principal:
        return self.known(credential)

    def holds(self, principal: Principal) -> bool:
        """Whether the key still stands in the file, unchanged, and has not expired."""
        _, current = self._entries.get(f"{principal.credential}_".encode(), _NO_ENTRY)
        return current == principal and (principal.expires_at is None or principal.expires_at > self._clock())

    async def refresh(self) -> None:
        """Read the file again if it has changed. One that cannot be used leaves the keys as they are."""
        await asyncio.to_thread(self._refresh)

    def _refresh(self) -> None:
        if not self._file.changed():
            return
        try:
            self._entries = _entries(key_file.read(self._file.path))
        except (KeyFileError, FileNotFoundError) as error:
            log.error("the API keys stay as they were", reason=str(error))
        else:
            log.info("the API keys have been read again", keys=len(self._entries))


_NO_ENTRY: _Entry = (b"", Principal("", "", frozenset()))


def _entries(keys: list[StoredKey]) -> dict[bytes, _Entry]:
    return {f"{PREFIX}{key.id}_".encode(): (bytes.fromhex(key.sha256), _principal(key)) for key in keys}


def _principal(key: StoredKey) -> Principal:
    return Principal(
        key.tenant,
        key.name,
        frozenset(key.scopes),
        rate=key.rate_per_s,
        burst=key.burst,
        credential=PREFIX + key.id,
        expires_at=None if key.expires_at is None else key.expires_at.timestamp(),
    )
