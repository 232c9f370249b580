"""The public keys that tokens are signed with: a JSON Web Key Set (RFC 7517), from a file or from an issuer's URL."""

import asyncio
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import structlog
from jwt import PyJWK, PyJWKClient
from jwt.exceptions import PyJWTError

from service.adapters.watched_file import WatchedFile

log = structlog.get_logger(__name__)

REFRESH_S = 300.0
"""Between two fetches where nobody misses a key: for as long a key is trusted after it was withdrawn."""
RETRY_S = 10.0
"""The least time between two fetches, whoever makes up ids of keys."""
_TIMEOUT_S = 5.0
_MATERIAL = ("crv", "e", "kty", "n", "x", "y")
"""Members that make a key the one that it is; all others are said about it."""


class SigningKeysError(ValueError):
    """The key set cannot be used; the message says why."""


class SigningKey(NamedTuple):
    """A public key, and what tells it from all others, whatever it is called (RFC 7638)."""

    key: PyJWK
    thumbprint: str


class SigningKeys:
    """Keys by their id and the algorithm that they may be used with, which is one of `algorithms`.

    A set that is at a URL may be away: then the keys stay what they were, none to begin with. `clock` is in seconds.
    """

    def __init__(self, source: str, algorithms: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        """Read the set where it is a file. Raises `SigningKeysError`."""
        self._algorithms = algorithms
        self._clock = clock
        self._set: object = None
        self._keys: dict[tuple[str | None, str], SigningKey] = {}
        self._file: WatchedFile | None = None
        self._client: PyJWKClient | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._fetched_at = -math.inf
        self.version = 0
        """Grows with each change of the set."""
        if "://" in source:
            self._client = PyJWKClient(_secure(source), cache_jwk_set=False, timeout=_TIMEOUT_S)
        else:
            self._file = WatchedFile(Path(source))
            self._file.changed()
            self._take(_read(self._file.path))

    @property
    def there(self) -> bool:
        """Whether a set has been seen at all."""
        return self._set is not None

    def find(self, key_id: str | None, algorithm: str) -> SigningKey | None:
        """Return a key. Where a set is of one key, that is also the one of tokens that name none."""
        return self._keys.get((key_id, algorithm))

    def has(self, thumbprint: str) -> bool:
        return any(thumbprint == key.thumbprint for key in self._keys.values())

    async def look_again(self) -> None:
        """Fetch the set for a key that is not in it, unless that was done a moment ago. A file is watched anyway."""
        if self._client is not None and (self._fetching is not None or self._due(RETRY_S)):
            await asyncio.shield(self._fetch(self._client))

    async def refresh(self) -> None:
        """Look after the set, every second or so: at a file's changes; a URL now and then, without waiting for it."""
        if self._file is not None:
            await asyncio.to_thread(self._refresh_file, self._file)
        elif self._client is not None and self._due(REFRESH_S if self.there else RETRY_S):
            self._fetch(self._client)

    def _due(self, after_s: float) -> bool:
        return self._clock() >= self._fetched_at + after_s

    def _fetch(self, client: PyJWKClient) -> asyncio.Task[None]:
        """Return the fetch that is being made, which goes on even if those who wait for it leave."""
        if self._fetching is None:
            self._fetched_at = self._clock()
            self._fetching = asyncio.create_task(self._fetch_now(client))
        return self._fetching

    async def _fetch_now(self, client: PyJWKClient) -> None:
        try:
            self._take(await asyncio.to_thread(client.fetch_data))
        except (PyJWTError, SigningKeysError, ValueError, OSError) as error:
            log.warning("the keys that tokens are signed with could not be fetched", reason=str(error), kept=self.there)
        finally:
            self._fetching = None

    def _refresh_file(self, file: WatchedFile) -> None:
        if file.changed():
            try:
                self._take(_read(file.path))
            except SigningKeysError as error:
                log.error("the keys that tokens are signed with stay as they were", reason=str(error))

    def _take(self, found: object) -> None:
        """Use a set from now on. Raises `SigningKeysError` where nothing in it can be used."""
        if found == self._set:
            return
        members = found.get("keys") if isinstance(found, dict) else None
        if not isinstance(members, list):
            raise SigningKeysError('a JSON Web Key Set is needed: {"keys": [...]}')
        signing = [key for key in members if isinstance(key, dict) and key.get("use") in (None, "sig")]
        keys = {
            (key_id, algorithm): usable
            for member in signing
            for algorithm in self._algorithms
            for key_id in ([member.get("kid"), None] if len(signing) == 1 else [member.get("kid")])
            if (usable := _usable(member, algorithm)) is not None
        }
        if not keys:
            raise SigningKeysError(f"the key set has no public key for {', '.join(self._algorithms)}")
        self._set, self._keys = found, keys
        self.version += 1


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise SigningKeysError(f"the key set {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SigningKeysError(f"{path} is no JSON Web Key Set: {error}") from error


def _usable(member: dict[str, Any], algorithm: str) -> SigningKey | None:
    """Return a key for use with an algorithm, or None where it is not one for it."""
    if member.get("alg") not in (None, algorithm) or not isinstance(member.get("kid"), str | None):
        return None
    try:
        return SigningKey(PyJWK(member, algorithm), _thumbprint(member))
    except PyJWTError:
        return None


def _thumbprint(member: dict[str, Any]) -> str:
    material = {name: member[name] for name in _MATERIAL if name in member}
    return hashlib.sha256(json.dumps(material, separators=(",", ":"), sort_keys=True).encode()).hexdigest()


def _secure(url: str) -> str:
    """Return a URL that nobody on the way can answer for. Raises `SigningKeysError`."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and _is_here(parts.hostname or "")):
        return url
    raise SigningKeysError(
        f"the key set at {parts.hostname or parts.scheme} could be forged on its way: https:// is needed, or a file"
    )


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
