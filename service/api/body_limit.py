"""Refuses bodies that are too large, before and while they arrive."""

from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """ASGI middleware: a request with a body of more than `max_bytes` is answered 413, as soon as its body is read."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            receive = self._limited(scope, receive)
        await self._app(scope, receive, send)

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        declared = next((int(value) for name, value in scope["headers"] if name == b"content-length"), None)
        if declared is not None and declared <= self._max_bytes:
            return receive  # the server holds a body to the length that was declared for it
        received = declared or 0

        async def limited() -> Message:
            nonlocal received
            if received <= self._max_bytes:
                message = await receive()
                received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise HTTPException(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {self._max_bytes} bytes"
                )
            return message

        return limited
