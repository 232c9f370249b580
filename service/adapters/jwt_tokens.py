"""Who asks, by JSON Web Tokens (RFC 7519) that an issuer has signed."""

import hashlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jwt
from jwt.exceptions import ExpiredSignatureError, InvalidAudienceError, InvalidIssuerError, PyJWTError

from service.adapters.signing_keys import SigningKey, SigningKeys
from service.core.access import TENANT, Principal, Scope
from service.core.errors import AuthenticationUnavailable, Unauthenticated

MAX_BYTES = 8192
"""Of a token; what is longer is not looked at."""
_REMEMBERED = 10_000
_SIGNED_BY = "jwk:"
_MAX_TIME = 2**53
_NAME = 100
"""Characters of a subject that make its name."""


class Terms(NamedTuple):
    """What a token must say. `leeway_s` is how far the clocks of issuer and service may be apart, in seconds."""

    issuer: str
    audience: str
    tenant_claim: str = "tenant"
    scope_claim: str = "scope"
    leeway_s: float = 30.0


class JwtTokens:
    """Tokens of one issuer. An `Authenticator` that remembers what it has verified until that expires.

    What it remembers goes when the issuer's keys change. `clock` is Unix time in seconds.
    """

    def __init__(self, keys: SigningKeys, terms: Terms, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._terms = terms
        self._clock = clock
        self._verified: dict[bytes, Principal] = {}
        self._version = keys.version

    def known(self, credential: bytes) -> Principal | None:
        principal = self._remembered().get(hashlib.sha256(credential).digest())
        return principal if principal is not None and self._lasts(principal) else None

    async def authenticate(self, credential: bytes) -> Principal:
        if len(credential) > MAX_BYTES:
            raise Unauthenticated(f"the token is longer than {MAX_BYTES} bytes")
        key_id, algorithm = _header(credential)
        version = self._keys.version
        if (key := self._keys.find(key_id, algorithm)) is None:
            await self._keys.look_again()
            version = self._keys.version
            key = self._keys.find(key_id, algorithm)
        if key is None:
            if not self._keys.there:
                raise AuthenticationUnavailable("the keys that tokens are signed with cannot be had at the moment")
            raise Unauthenticated("the token is not signed with a key and an algorithm that are trusted here")
        principal = self._principal(self._claims(credential, key.key, algorithm), key)
        remembered = self._remembered()
        if version != self._version:
            return principal  # the keys changed meanwhile, in another thread: this one may be withdrawn
        if len(remembered) >= _REMEMBERED:
            del remembered[next(iter(remembered))]  # the oldest
        remembered[hashlib.sha256(credential).digest()] = principal
        return principal

    def holds(self, principal: Principal) -> bool:
        """Whether the token has not expired, and the key that signed it is still one of the issuer's."""
        return self._lasts(principal) and self._keys.has(principal.credential.removeprefix(_SIGNED_BY))

    async def refresh(self) -> None:
        await self._keys.refresh()

    def _remembered(self) -> dict[bytes, Principal]:
        """Return whose tokens were verified with the keys that there are now, by the tokens' hashes."""
        if self._version != self._keys.version:
            self._verified.clear()
            self._version = self._keys.version
        return self._verified

    def _lasts(self, principal: Principal) -> bool:
        return principal.expires_at is not None and principal.expires_at > self._clock()

    def _claims(self, credential: bytes, key: jwt.PyJWK, algorithm: str) -> dict[str, Any]:
        """Verify a token, and return what it says. Raises `Unauthenticated`, and tells nothing of the token."""
        terms = self._terms
        try:
            return jwt.decode(
                credential,
                key,
                algorithms=[algorithm],
                issuer=terms.issuer,
                audience=terms.audience,
                leeway=terms.leeway_s,
                options={"require": ["exp", "iss", "aud", "sub"], "enforce_minimum_key_length": True},
            )
        except ExpiredSignatureError as error:
            raise Unauthenticated("the token has expired") from error
        except InvalidIssuerError as error:
            raise Unauthenticated("the token is not of the issuer that is trusted here") from error
        except InvalidAudienceError as error:
            raise Unauthenticated("the token is meant for another service") from error
        except PyJWTError as error:
            raise Unauthenticated(f"the token cannot be accepted ({type(error).__name__})") from error

    def _principal(self, claims: dict[str, Any], key: SigningKey) -> Principal:
        terms = self._terms
        tenant, scopes = claims.get(terms.tenant_claim), claims.get(terms.scope_claim, "")
        if not isinstance(tenant, str) or TENANT.fullmatch(tenant) is None:
            raise Unauthenticated(
                f"the token names no tenant: its claim {terms.tenant_claim!r} must match {TENANT.pattern}"
            )
        granted = scopes.split() if isinstance(scopes, str) else scopes if isinstance(scopes, list) else []
        return Principal(
            tenant,
            claims["sub"][:_NAME].encode(errors="backslashreplace").decode(),  # JSON may hold halves of characters
            frozenset(scope for scope in Scope if scope.value in granted),
            credential=_SIGNED_BY + key.thumbprint,
            expires_at=min(int(claims["exp"]), _MAX_TIME) + terms.leeway_s,
        )


def _header(credential: bytes) -> tuple[str | None, str]:
    """Return which key a token says that it is signed with, and how. Raises `Unauthenticated`."""
    try:
        header = jwt.get_unverified_header(credential)
    except PyJWTError as error:
        raise Unauthenticated("what was sent behind Bearer is neither an API key nor a token") from error
    key_id, algorithm = header.get("kid"), header.get("alg")
    if not isinstance(algorithm, str) or not isinstance(key_id, str | None):
        raise Unauthenticated("the token does not say which key and which algorithm it is signed with")
    return key_id, algorithm
