"""What stands in front of WebSockets alone."""

from collections.abc import Awaitable, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.hot import Layer


class Handshakes:
    """ASGI layer of layers, the first outermost, that see handshakes only. A request passes by with one call."""

    def __init__(self, app: ASGIApp, layers: Sequence[Layer]) -> None:
        self._app = self._sockets = app
        for layer in reversed(layers):
            self._sockets = layer(self._sockets)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return (self._sockets if scope["type"] == "websocket" else self._app)(scope, receive, send)
