"""The routes that carry steps stand in front of the framework: its layers would cost more than the step.

They are ordinary routes of the application too, so that OpenAPI knows them; but a request that one of them matches
goes to it at once, past middleware, telemetry, routing and the exception handlers, whose work is done here.
"""

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, ClassVar

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.body_limit import BodyLimit
from service.api.dependencies import PRINCIPAL, require
from service.api.problems import respond
from service.core import access
from service.core.errors import Forbidden

Layer = Callable[[ASGIApp], ASGIApp]
"""Something that stands in front of an application."""


class GuardedRoute(APIRoute):
    """Serves who has the scope `needed`, or, where that is None, everybody who gets this far. See `needing`."""

    needed: ClassVar[access.Scope | None]

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            require(scope, self.needed)
        except Forbidden as error:  # before anything of the body is read
            response = await respond(Request(scope), error)
            await response(scope, receive, send)
        else:
            await super().handle(scope, receive, send)


def needing(scope: access.Scope | None) -> type[GuardedRoute]:
    """Return the class of the routes that need a scope: ``APIRouter(route_class=needing(Scope.SESSIONS))``."""
    return type(f"GuardedRoute[{scope}]", (GuardedRoute,), {"needed": scope})


class ThinRoute(GuardedRoute):
    """Hands the request to its endpoint as it is: no dependencies are solved, no response is validated.

    For an endpoint that advances sessions, takes the request and returns a response. OpenAPI knows it from its
    decorator.
    """

    needed = access.Scope.STEP

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.methods and scope["method"] not in self.methods:
            await super().handle(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            if PRINCIPAL in scope:
                require(scope, self.needed)
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
    """FastAPI with hot routes in front of it, a limit to every body, and layers before all, the first outermost.

    The layers in `front` see each connection before anything of its body is read, and the lifespan.
    """

    def __init__(
        self, *, hot: Sequence[BaseRoute], max_body_bytes: int, front: Sequence[Layer] = (), **options: Any
    ) -> None:
        super().__init__(**options)
        self.router.routes.extend(hot)
        self._front: ASGIApp = BodyLimit(_Front(super().__call__, hot), max_body_bytes)
        for layer in reversed(front):
            self._front = layer(self._front)

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
