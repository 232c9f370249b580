"""A WebSocket as the routes see it: a handshake and an end by ASGI, and in between messages as they come.

ASGI would have a task wait for every message and another one send every answer, which costs more than the step.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol

from starlette.requests import HTTPConnection
from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send

from service.api.dependencies import require
from service.api.encodings import JSON, SUBPROTOCOLS
from service.api.messages import Answer
from service.api.problems import problem, wire_of
from service.core import access
from service.core.errors import ConveyorError, Forbidden, Unavailable

EXTENSION = "conveyor.wire"
"""Name of the ASGI extension, see `Wire`, that these routes need and `service.websocket` offers."""


class Gone(Exception):
    """The client has left; nothing can be sent any more."""


class Wire(Protocol):
    """What the server offers of an accepted WebSocket. No method blocks or raises."""

    @property
    def full(self) -> bool:
        """Whether the client reads so slowly that nothing more should be written."""
        ...

    def listen(self, on_message: Callable[[str | bytes], None], on_writable: Callable[[], None]) -> None:
        """Hand over each message from now on, and tell when the socket is no longer full."""
        ...

    def write(self, message: bytes, *, binary: bool = False) -> None:
        """Send a message, or nothing where the connection is closing."""
        ...

    def pause(self) -> None:
        """Hand over nothing more, and let the client wait."""
        ...

    def resume(self) -> None: ...

    def abort(self) -> None:
        """End the connection at once, whatever has not been sent yet."""
        ...


class Socket(HTTPConnection):
    """One client's socket. It is accepted first, then used through its `wire`."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope)
        self._receive = receive
        self._send = send
        self.wire: Wire = scope["extensions"][EXTENSION]
        self.encoding = JSON
        self._accepted = False

    async def accept(self) -> None:
        """Accept the handshake, and speak the first of the offered subprotocols that is spoken here, or JSON."""
        await self._receive()  # websocket.connect
        self._accepted = True
        offered = self.scope.get("subprotocols", ())
        chosen = next((name for name in offered if name in SUBPROTOCOLS), None)
        self.encoding = JSON if chosen is None else SUBPROTOCOLS[chosen]
        await self._emit({"type": "websocket.accept", "subprotocol": chosen, "headers": []})

    async def gone(self) -> None:
        """Return when the client has left."""
        while (await self._receive())["type"] != "websocket.disconnect":
            pass  # it was sent before anybody listened

    def send(self, message: Answer | bytes) -> None:
        content = message if isinstance(message, bytes) else self.encoding.encode(message)
        self.wire.write(content, binary=self.encoding.binary)

    async def close(self, code: int, reason: str = "") -> None:
        """Close the socket. Raises `Gone`."""
        await self._emit({"type": "websocket.close", "code": code, "reason": reason})

    async def refuse(self, error: ConveyorError) -> None:
        """Tell of an error and close. An unanswered handshake is accepted first: a browser can read it nowhere else."""
        if not self._accepted:
            await self.accept()
        self.send({"error": problem(error)})
        try_later = 1013 if isinstance(error, Unavailable) else 1008
        await self.close(wire_of(error).close or try_later, error.code)

    async def _emit(self, message: dict[str, Any]) -> None:
        try:
            await self._send(message)
        except OSError as error:
            raise Gone from error


class SocketRoute(WebSocketRoute):
    """Hands its endpoint the `Socket`. A client that leaves ends the endpoint, and is no error.

    `needed` is the scope that who connects must have.
    """

    def __init__(self, path: str, endpoint: Callable[[Socket], Awaitable[None]], needed: access.Scope) -> None:
        super().__init__(path, endpoint)
        self.needed = needed

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            socket = Socket(scope, receive, send)
            with suppress(Gone):
                try:
                    require(scope, needed)
                except Forbidden as error:
                    await socket.refuse(error)
                else:
                    await endpoint(socket)

        self.app = app
