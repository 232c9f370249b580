"""The gate: who asks is known before anything of what they send is read."""

from collections.abc import Iterable
from contextlib import suppress

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.dependencies import PRINCIPAL
from service.api.problems import problem_response
from service.api.socket import Gone, Socket
from service.core.access import STRANGER, Authenticator
from service.core.errors import ConveyorError, Unauthenticated

OPEN = frozenset({"/healthz", "/readyz", "/docs", "/docs/oauth2-redirect", "/openapi.json"})
"""Paths that strangers get answers at: what orchestrators ask, and what is the same at every service."""


class Gate:
    """ASGI layer that puts the `Principal` into the scope of a connection, or refuses the connection.

    A layer in front of it may have found out who asks, in a way of its own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and PRINCIPAL not in scope:
            authenticator: Authenticator = scope["state"]["services"].authenticator
            try:
                credential = credential_of(scope["headers"])
                scope[PRINCIPAL] = authenticator.known(credential) or await authenticator.authenticate(credential)
            except ConveyorError as error:
                if scope["path"] not in OPEN:
                    await refuse(scope, receive, send, error)
                    return
                scope[PRINCIPAL] = STRANGER
        await self._app(scope, receive, send)


def credential_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return what stands behind `Bearer` in the one Authorization header. Raises `Unauthenticated`."""
    sent = [value for name, value in headers if name == b"authorization"]
    if len(sent) != 1:
        raise Unauthenticated(
            "say who you are: send the header Authorization with Bearer and an API key or a token"
            if not sent
            else "the header Authorization was sent more than once"
        )
    scheme, _, credential = sent[0].partition(b" ")
    if scheme.lower() != b"bearer" or not credential:
        raise Unauthenticated("the header Authorization must be Bearer and an API key or a token")
    return bytes(credential)


async def refuse(scope: Scope, receive: Receive, send: Send, error: ConveyorError) -> None:
    """Answer a connection with an error, and read nothing of what it sends."""
    if scope["type"] == "websocket":
        with suppress(Gone):
            await Socket(scope, receive, send).refuse(error)
    else:
        await problem_response(error)(scope, receive, send)
