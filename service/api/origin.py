"""Which web pages may use the service: a browser says with `Origin` whose script is asking."""

from collections.abc import Collection

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.problems import problem_response
from service.api.rate_limits import HEADERS
from service.core.errors import Forbidden
from service.core.origin import ANY_ORIGIN, is_of_host

_METHODS = ("GET", "POST", "PUT", "DELETE")
_REQUEST_HEADERS = ("Authorization", "Content-Type")
_ANSWER_HEADERS = (*HEADERS, "Retry-After", "WWW-Authenticate")


class SocketOrigins:
    """ASGI layer of handshakes that refuses that of a page that is neither of this host nor of an allowed origin.

    The browser's own rule, that a page reads no answers from elsewhere, does not hold for WebSockets. What is no
    browser sends no `Origin`, and passes.
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str]) -> None:
        self._app = app
        self._allowed = frozenset(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (refused := self._refused(scope)) is None:
            await self._app(scope, receive, send)
            return
        error = Forbidden(
            f"pages of the origin {refused[:200]!r} may not open WebSockets here; "
            "CONVEYOR_ALLOWED_ORIGINS names those that may"
        )
        await problem_response(error)(scope, receive, send)

    def _refused(self, scope: Scope) -> str | None:
        """Return the origin of a handshake, where it is not allowed. The server lets none pass that has several."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        origin = headers.get(b"origin")
        if origin is None or ANY_ORIGIN in self._allowed or origin in self._allowed:
            return None
        return None if is_of_host(origin, headers.get(b"host", "")) else origin


def with_cors(app: ASGIApp, allowed: Collection[str]) -> ASGIApp:
    """Stand an ASGI layer in front of all others that answers preflights and lets pages of `allowed` read answers."""
    return CORSMiddleware(
        app,
        allow_origins=tuple(allowed),
        allow_methods=_METHODS,
        allow_headers=_REQUEST_HEADERS,
        expose_headers=_ANSWER_HEADERS,
    )
