"""How uvicorn is run."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import uvicorn
from uvicorn.lifespan.on import LifespanOn

from service.http import EndingState, HttpProtocol
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
        )

        self.request_timeout_s = settings.request_timeout_s
        self.max_connections = settings.max_connections
        self.max_body_bytes = settings.max_body_bytes

    def load(self) -> None:
        super().load()
        self.lifespan_class = Lifespan


ENDS_WITHIN_S = 1.2
"""From the closing of the port to that of the last connection, whatever is still asked or answered on it."""
LAST_REQUESTS_WITHIN_S = 1.0
"""The part of it in which connections may still ask, at most."""
QUIET_S = 0.5
"""How long nobody must have been answered for those that are idle to be closed before."""
_HANDSHAKE_S = 0.1
"""What all get who have just connected: none of them can be seen before its TLS handshake is done."""
_LOOK_EVERY_S = 0.02
_TOLD_TWICE = 2
_BACKLOG = 2048


class Server(uvicorn.Server):
    """Ends without cutting off who has just connected, or is about to ask.

    A proxy that sends a request over a connection which is being closed cannot know whether it was taken, and must not
    send a `POST` again: its client gets a 502 (docs/decisions/0016). So whoever has connected is let in before the port
    is closed, the next answer on each connection says that it is the last, and what is idle is closed only when all has
    been quiet for a while. uvicorn closes all of it at once. Who tells the service to end twice waits for none of this.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.server_state: EndingState = EndingState()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        end = asyncio.get_running_loop().time() + ENDS_WITHIN_S
        late = [self._let_in(connection) for listener in sockets or [] for connection in _waiting(listener)]
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        self.server_state.ending = True
        for connection in self._connections():
            connection.finish()
        await self._last_requests()
        for handshake in late:
            handshake.cancel()
        self.config.timeout_graceful_shutdown = max(end - asyncio.get_running_loop().time(), 0)  # type: ignore[assignment]
        await super().shutdown(sockets)

    def _let_in(self, connection: socket.socket) -> asyncio.Task[None]:
        loop = asyncio.get_running_loop()

        async def handshake() -> None:
            protocol = partial(HttpProtocol, self.config, self.server_state, self.lifespan.state)
            with suppress(OSError):  # it has left again, or is no TLS
                await loop.connect_accepted_socket(protocol, connection, ssl=self.config.ssl)

        return loop.create_task(handshake())

    async def _last_requests(self) -> None:
        """Wait until nobody is left, or asks any more, or longer than that."""
        loop = asyncio.get_running_loop()
        seen_until, end = loop.time() + _HANDSHAKE_S, loop.time() + LAST_REQUESTS_WITHIN_S
        answered, quiet_until = self.server_state.total_requests, loop.time() + QUIET_S
        while loop.time() < min(quiet_until, end) and len(self._captured_signals) < _TOLD_TWICE:
            if loop.time() > seen_until and not self._connections():
                return
            await asyncio.sleep(_LOOK_EVERY_S)
            if answered != (answered := self.server_state.total_requests):
                quiet_until = loop.time() + QUIET_S

    def _connections(self) -> list[HttpProtocol]:
        return [each for each in self.server_state.connections if isinstance(each, HttpProtocol)]


def _waiting(listener: socket.socket) -> Iterator[socket.socket]:
    """Accept who has connected and was not yet let in: the system would reset them with the listener's end."""
    for _ in range(_BACKLOG):
        try:
            yield listener.accept()[0]
        except BlockingIOError:
            return
        except OSError:  # of that connection, as a rule: it has left again
            continue


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
        listener.listen(_BACKLOG)
        listener.set_inheritable(True)
    except BaseException:
        listener.close()
        raise
    return listener
