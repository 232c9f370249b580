"""The routes that carry steps stand in front of the framework: its layers would cost more than the step.

They are ordinary routes of the application too, so that OpenAPI knows them; but a request that one of them matches
goes to it at once, past middleware, telemetry, routing and the exception handlers, whose work is done here.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.body_limit import BodyLimit
from service.api.problems import respond


class ThinRoute(APIRoute):
    """Hands the request to its endpoint as it is: no dependencies are solved, no response is validated.

    For an endpoint that takes the request and returns a response. OpenAPI knows it from its decorator.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.methods and scope["method"] not in self.methods:
            await super().handle(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await self.endpoint(request)
        except Exception as error:
            response = await respond(request, error)
        await response(scope, receive, send)


class Encoded(Response):
    """A `200` of bytes that are there. Makes of its headers what has to be sent, and nothing to look into."""

    def __init__(self, body: bytes, media_type: str) -> None:
        self.status_code = HTTPStatus.OK
        self.body = body
        self.background = None
        self.raw_headers = [(b"content-length", b"%d" % len(body)), (b"content-type", media_type.encode())]


async def body_of(request: Request) -> bytes:
    """Return a request's body. Raises `ClientDisconnect`."""
    parts = []
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


class Application(FastAPI):
    """FastAPI with hot routes in front of it, and a limit to every body."""

    def __init__(self, *, hot: Sequence[BaseRoute], max_body_bytes: int, **options: Any) -> None:
        super().__init__(**options)
        self.router.routes.extend(hot)
        self._front = BodyLimit(_Front(super().__call__, hot), max_body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._front(scope, receive, send)


class _Front:
    def __init__(self, rest: ASGIApp, hot: Sequence[BaseRoute]) -> None:
        self._rest = rest
        self._hot = hot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for route in self._hot:
            match, found = route.matches(scope)
            if match is Match.FULL:
                scope.update(found)
                await route.handle(scope, receive, send)
                return
        await self._rest(scope, receive, send)
