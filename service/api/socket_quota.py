"""The quota of sockets: how many of a tenant's this process holds open at a time."""

from collections import Counter
from collections.abc import Awaitable

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.dependencies import PRINCIPAL
from service.api.gate import refuse
from service.core.access import ANYBODY
from service.core.errors import QuotaExceeded


class SocketQuota:
    """ASGI layer, behind what says who asks: each tenant may have `limit` sockets. Requests pass by with one call."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit
        self._open: Counter[str] = Counter()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return (self._counted if scope["type"] == "websocket" else self._app)(scope, receive, send)

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        tenant = scope.get(PRINCIPAL, ANYBODY).tenant
        if self._open[tenant] >= self._limit:
            error = QuotaExceeded(
                f"{self._limit} sockets are allowed at a time, and as many are open here: close one, or send the steps "
                "of many sessions over one, at /v1/stream",
                limit=self._limit,
            )
            await refuse(scope, receive, send, error)
            return
        self._open[tenant] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._open[tenant] -= 1
            if not self._open[tenant]:
                del self._open[tenant]
