"""Rate limits on the wire: who has spent theirs is refused, and everybody who has one is told what is left of it.

The header fields are those of draft-ietf-httpapi-ratelimit-headers-10.
"""

import math
from collections.abc import Awaitable
from functools import lru_cache

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.dependencies import PRINCIPAL, services_of
from service.api.gate import refuse
from service.core.access import ANYBODY
from service.core.errors import RateLimited
from service.core.rate import Meter, RateLimit
from service.rates import Rates, Submitter

METER = "conveyor.meter"
"""Where an ASGI scope has the meter of who asks, if they have a limit."""

HEADERS = ("RateLimit", "RateLimit-Policy")

_LIMITED = "/v1/"
_STEPS = "/steps"


def submitter(connection: HTTPConnection) -> Submitter:
    """Return what a connection's steps are submitted with: the engine, behind a meter where there is a limit."""
    services = services_of(connection)
    meter = connection.scope.get(METER)
    return services.engine if meter is None else services.rates.limited(meter, services.engine)


def count_history(connection: HTTPConnection, timesteps: int) -> None:
    """Count a request that primes a session as what it makes run, in place of one timestep. Raises `RateLimited`."""
    meter = connection.scope.get(METER)
    if meter is not None and timesteps > 1:
        meter.give_back(1)
        services_of(connection).rates.take(meter, timesteps)


class RateLimits:
    """ASGI layer, behind what says who asks. A request or a handshake costs as much as a timestep.

    Steps are counted where they are read, see `submitter`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "lifespan" and scope["path"].startswith(_LIMITED):
            rates: Rates = scope["state"]["services"].rates
            meter = rates.meter(scope.get(PRINCIPAL, ANYBODY))
            if meter is not None:
                scope[METER] = meter
                return self._metered(scope, receive, _telling(send, rates, meter), rates, meter)
        return self._app(scope, receive, send)

    async def _metered(self, scope: Scope, receive: Receive, send: Send, rates: Rates, meter: Meter) -> None:
        try:
            if not _carries_steps(scope):
                rates.take(meter, 1)
        except RateLimited as error:
            await refuse(scope, receive, send, error)
        else:
            await self._app(scope, receive, send)


def _carries_steps(scope: Scope) -> bool:
    path: str = scope["path"]
    return scope["type"] == "http" and scope["method"] == "POST" and path.endswith(_STEPS)


def _telling(send: Send, rates: Rates, meter: Meter) -> Send:
    """Return a `send` that adds the header fields to an answer."""

    async def telling(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *_fields(rates, meter)]
        await send(message)

    return telling


def _fields(rates: Rates, meter: Meter) -> list[tuple[bytes, bytes]]:
    left, full_in_s = rates.left(meter)
    return [_policy(meter.limit), (b"ratelimit", b'"default";r=%d;t=%d' % (left, math.ceil(full_in_s)))]


@lru_cache
def _policy(limit: RateLimit) -> tuple[bytes, bytes]:
    return b"ratelimit-policy", b'"default";q=%d;w=%d' % (limit.rate * limit.window_s, limit.window_s)
