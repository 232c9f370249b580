"""How uvicorn is run."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import uvicorn
from uvicorn.lifespan.on import LifespanOn

from service.http import HttpProtocol
from service.settings import Settings
from service.tls import TlsFiles, listening_context
from service.websocket import WebSocketProtocol


class Lifespan(LifespanOn):
    """Tells of a start that failed for a known reason in its words, without the traceback."""

    async def send(self, message: Any) -> None:
        if message["type"] == "lifespan.startup.failed":
            _, known, reason = message["message"].rpartition("StartupError: ")
            message = {**message, "message": reason.strip() if known else message["message"]}
        await super().send(message)


class Config(uvicorn.Config):
    """uvicorn's fastest protocols, each with a shorter way through it.

    Nothing is compressed: a forecast is small, the memory of a deflate context is not.
    """

    def __init__(self, app: Any, settings: Settings, *, factory: bool = False) -> None:
        tls = TlsFiles.of(settings)
        super().__init__(
            app,
            factory=factory,
            # Made in the process that listens: a context cannot be sent to a worker.
            ssl_context_factory=None if tls is None else partial(listening_context, tls),
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
            lifespan="on",
            http=HttpProtocol,
            ws=WebSocketProtocol,
            ws_per_message_deflate=False,
            ws_max_size=settings.max_body_bytes,
            # Pings keep proxies from closing idle sockets, but nobody is cut off for a late pong: it may wait behind a
            # client's own steps. TCP finds out who has gone, see `listen`.
            ws_ping_timeout=None,
            log_config=None,
            access_log=settings.access_log,
            proxy_headers=settings.access_log,  # nothing else asks who the client is
            server_header=False,
            timeout_graceful_shutdown=1,
        )

        self.request_timeout_s = settings.request_timeout_s
        self.max_connections = settings.max_connections
        self.max_body_bytes = settings.max_body_bytes

    def load(self) -> None:
        super().load()
        self.lifespan_class = Lifespan


QUIET_S = 0.5
"""How long nobody must have been answered before idle connections are closed."""
LAST_REQUESTS_S = 1.0
"""How long that is waited for."""
_LOOK_EVERY_S = 0.02


class Server(uvicorn.Server):
    """Ends without cutting off who has just connected, or is about to ask.

    A proxy that sends a request over a connection which is being closed cannot know whether it was taken, and must not
    send a `POST` again: its client gets a 502 (docs/decisions/0016). So whoever has connected is let in before the port
    is closed, the next answer on each connection says that it is the last, and what is idle is closed only when all has
    been quiet for a while. uvicorn closes all of it at once.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        late = [connection for listener in sockets or [] for connection in _waiting(listener)]
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        await asyncio.gather(*map(self._let_in, late), return_exceptions=True)
        await self._last_requests()
        await super().shutdown(sockets)

    async def _let_in(self, connection: socket.socket) -> None:
        def protocol() -> HttpProtocol:
            made = HttpProtocol(self.config, self.server_state, self.lifespan.state)
            made.finish()
            return made

        await asyncio.get_running_loop().connect_accepted_socket(protocol, connection, ssl=self.config.ssl)

    async def _last_requests(self) -> None:
        loop = asyncio.get_running_loop()
        answered = self.server_state.total_requests
        quiet_until, end = loop.time() + QUIET_S, loop.time() + LAST_REQUESTS_S
        while (left := self._connections()) and loop.time() < min(quiet_until, end) and not self.force_exit:
            for connection in left:
                connection.finish()
            await asyncio.sleep(_LOOK_EVERY_S)
            if answered != (answered := self.server_state.total_requests):
                quiet_until = loop.time() + QUIET_S

    def _connections(self) -> list[HttpProtocol]:
        return [each for each in self.server_state.connections if isinstance(each, HttpProtocol)]


def _waiting(listener: socket.socket) -> Iterator[socket.socket]:
    """Accept who has connected and was not yet let in: the system would reset them with the listener's end."""
    with suppress(OSError):  # nobody is there, as a rule
        while True:
            yield listener.accept()[0]


_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises `OSError` where the address cannot be had."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit what makes the system notice within a minute that a client has vanished.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if (option := getattr(socket, name, None)) is not None:
                listener.setsockopt(socket.IPPROTO_TCP, option, value)
        listener.bind((host, port))
        listener.listen(2048)
        listener.set_inheritable(True)
    except BaseException:
        listener.close()
        raise
    return listener
