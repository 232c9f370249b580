"""A WebSocket as close to the server as ASGI goes: a framework's checks of every message cost a tenth of a step."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from starlette.requests import HTTPConnection
from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send

from service.api.messages import encode

SUBPROTOCOL = "conveyor.v1.json"


class Gone(Exception):
    """The client has left; nothing can be sent any more."""


class Socket(HTTPConnection):
    """One client's socket. It is accepted first, then used by one reader and one writer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope)
        self._receive = receive
        self._send = send

    async def accept(self) -> None:
        """Accept the handshake, with the subprotocol that is spoken here if the client offers it."""
        await self._receive()  # websocket.connect
        offered = self.scope.get("subprotocols", ())
        chosen = SUBPROTOCOL if SUBPROTOCOL in offered else None
        await self._emit({"type": "websocket.accept", "subprotocol": chosen, "headers": []})

    async def receive(self) -> bytes | str:
        """Return the next message. Raises `Gone`."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            raise Gone
        text: str | None = message.get("text")
        content: bytes | str = message["bytes"] if text is None else text
        return content

    async def send(self, message: Mapping[str, Any] | list[Any]) -> None:
        """Send a message; wait while the client does not read. Raises `Gone`."""
        try:
            await self._send({"type": "websocket.send", "text": encode(message).decode()})
        except OSError as error:
            raise Gone from error

    async def close(self, code: int, reason: str = "") -> None:
        """Close the socket. Raises `Gone`."""
        await self._emit({"type": "websocket.close", "code": code, "reason": reason})

    async def _emit(self, message: dict[str, Any]) -> None:
        try:
            await self._send(message)
        except OSError as error:
            raise Gone from error


class SocketRoute(WebSocketRoute):
    """Hands its endpoint the `Socket`. A client that leaves ends the endpoint, and is no error."""

    def __init__(self, path: str, endpoint: Callable[[Socket], Awaitable[None]]) -> None:
        super().__init__(path, endpoint)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            with suppress(Gone):
                await endpoint(Socket(scope, receive, send))

        self.app = app
