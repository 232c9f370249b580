"""How the service knows who asks: by keys, by tokens, or by both; and how it takes notice of what has changed."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import structlog

from service.adapters.api_keys import ApiKeys
from service.api.dependencies import Services, Stoppable
from service.core.access import Authenticator, Principal, Refreshable
from service.core.errors import Unauthenticated
from service.settings import Settings

if TYPE_CHECKING:
    from service.adapters.jwt_tokens import JwtTokens

log = structlog.get_logger(__name__)

WATCH_S = 1.0
"""Between two looks at what keys and tokens are good, and at who is connected."""


class Credentials:
    """Both kinds of credentials, told apart by their form. See `Refreshable`."""

    def __init__(self, keys: ApiKeys | None, tokens: "JwtTokens | None") -> None:
        self._keys = keys
        self._tokens = tokens

    def known(self, credential: bytes) -> Principal | None:
        return self._judge_of(credential).known(credential)

    async def authenticate(self, credential: bytes) -> Principal:
        return await self._judge_of(credential).authenticate(credential)

    def holds(self, principal: Principal) -> bool:
        judge = self._keys if ApiKeys.concern(principal.credential.encode()) else self._tokens
        return judge is not None and judge.holds(principal)

    async def refresh(self) -> None:
        for kind in (self._keys, self._tokens):
            if kind is not None:
                await kind.refresh()

    def _judge_of(self, credential: bytes) -> "ApiKeys | JwtTokens":
        judge = self._keys if ApiKeys.concern(credential) else self._tokens
        if judge is None:
            raise Unauthenticated(f"{'a token' if self._keys is None else 'an API key'} is needed here")
        return judge


def credentials(settings: Settings) -> Credentials | None:
    """Return what knows who asks, or None where nobody has to say so.

    Raises `KeyFileError` and `SigningKeysError`, both a `ValueError` whose message says what to do.
    """
    if not settings.authenticates:
        return None
    keys = None if settings.api_keys is None else ApiKeys(settings.api_keys)
    return Credentials(keys, None if settings.jwt_keys is None else _tokens(settings, settings.jwt_keys))


def _tokens(settings: Settings, keys: str) -> "JwtTokens":
    # What they are verified with is loaded where there are any: it takes a thirtieth of a second.
    from service.adapters.jwt_tokens import JwtTokens, Terms
    from service.adapters.signing_keys import SigningKeys

    terms = Terms(
        settings.jwt_issuer or "",
        settings.jwt_audience or "",
        settings.jwt_tenant_claim,
        settings.jwt_scope_claim,
        settings.jwt_leeway_s,
    )
    return JwtTokens(SigningKeys(keys, settings.jwt_algorithms), terms)


@asynccontextmanager
async def watched(services: Services, authenticator: Refreshable) -> AsyncIterator[None]:
    """Keep what the authenticator knows fresh, and close the sockets of those who may no longer be there."""
    await authenticator.refresh()
    watch = asyncio.create_task(_watch(services, authenticator))
    try:
        yield
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch


async def _watch(services: Services, authenticator: Refreshable) -> None:
    while True:
        await asyncio.sleep(WATCH_S)
        try:
            await authenticator.refresh()
            dismiss(services.sockets, authenticator)
        except Exception:
            # What guards the service must outlive its own defects.
            log.exception("looking after keys and tokens failed")


def dismiss(sockets: Collection[Stoppable], authenticator: Authenticator) -> None:
    """Close the sockets of those whose key or token has expired, was changed or was withdrawn since they connected."""
    present = {id(socket.principal): socket.principal for socket in sockets}  # one key may have thousands of sockets
    gone = {number for number, principal in present.items() if not authenticator.holds(principal)}
    for socket in list(sockets) if gone else ():
        if id(socket.principal) in gone:
            socket.dismiss(
                Unauthenticated("the key or token of this connection is no longer good; connect with another")
            )
