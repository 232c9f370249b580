"""Which web pages may use the service: a browser says with `Origin` whose script is asking."""

import re
from collections.abc import Collection

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.problems import problem_response
from service.api.rate_limits import HEADERS
from service.core.errors import Forbidden

ANY = "*"
_ORIGIN = re.compile(r"https?://[^\s/?#@\\,]+")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_METHODS = ("GET", "POST", "PUT", "DELETE")
_REQUEST_HEADERS = ("Authorization", "Content-Type")


def require_origin(origin: str) -> str:
    """Return an origin as browsers write it. Raises `ValueError` for what is none."""
    if origin == ANY:
        return origin
    origin = origin.lower()
    if _ORIGIN.fullmatch(origin) is None:
        raise ValueError(f"{origin!r} is no origin; https://example.com or http://localhost:3000 would be, or *")
    scheme, host = origin.split("://")
    return f"{scheme}://{host.removesuffix(_DEFAULT_PORTS[scheme])}"


class SocketOrigins:
    """ASGI middleware: refuses the handshake of a page that is neither this host's nor of an allowed origin.

    The browser's own rule for requests, that a page reads no other origin's answers, does not hold for WebSockets.
    What is no browser sends no `Origin`, and passes.
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str]) -> None:
        self._app = app
        self._allowed = frozenset(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        if origin is None or self._allows(origin.decode("latin-1"), headers.get(b"host", b"").decode("latin-1")):
            await self._app(scope, receive, send)
            return
        error = Forbidden(
            f"pages of the origin {origin.decode('latin-1')[:200]!r} may not open WebSockets here; "
            "whoever runs this service can allow it with CONVEYOR_ALLOWED_ORIGINS"
        )
        await problem_response(error)(scope, receive, send)

    def _allows(self, origin: str, host: str) -> bool:
        return ANY in self._allowed or origin in self._allowed or _is_same(origin, host)


def _is_same(origin: str, host: str) -> bool:
    """Whether a page comes from the host that it asks. Its scheme does not tell: TLS may end before this service."""
    scheme, _, place = origin.partition("://")
    port = _DEFAULT_PORTS.get(scheme)
    return port is not None and place.removesuffix(port) == host.lower().removesuffix(port)


def with_cors(app: ASGIApp, allowed: Collection[str]) -> ASGIApp:
    """Let pages of the allowed origins read answers: an ASGI middleware that answers preflights, before all others."""
    return CORSMiddleware(
        app,
        allow_origins=tuple(allowed),
        allow_methods=_METHODS,
        allow_headers=_REQUEST_HEADERS,
        expose_headers=HEADERS,
    )
