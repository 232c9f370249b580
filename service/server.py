"""How uvicorn is run."""

import asyncio
import socket
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


_LAST_REQUESTS_S = 0.1
"""From the last connection to the closing of those that have not asked for anything."""


class Server(uvicorn.Server):
    """Ends without cutting off who has just connected, and is about to ask: uvicorn closes what has no request yet."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        await asyncio.sleep(_LAST_REQUESTS_S)
        await super().shutdown(sockets)


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
