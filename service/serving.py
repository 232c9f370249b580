"""``conveyor serve``: one process that serves, or several on one port."""

import asyncio
import sys
from contextlib import AsyncExitStack
from functools import partial
from ipaddress import ip_address
from socket import socket

import structlog
import typer
from uvicorn.config import STARTUP_FAILURE

from service import open_files
from service.adapters.model_trial import Trials
from service.api.dependencies import Services
from service.app import BANNER, create_app, create_worker, describe
from service.options import fail
from service.server import Config, Server, listen
from service.settings import Settings
from service.stores import StartupError, embedded_redis
from service.tls import TlsError, TlsFiles
from service.workers import Workers, shared_folder

SERVER_ENDS_WITHIN_S = 4.0
"""What a worker's end may take beyond the drain: the last words to sockets, the server's own end, the engine's."""

log = structlog.get_logger(__name__)


def serve(settings: Settings, trials: Trials | None = None) -> None:
    """Serve until told to end. Ends with a clear error where settings do not work here.

    `trials` of the models may be under way already, where this process alone is to serve.
    """
    settings = _with_open_files(settings)
    try:
        if (tls := TlsFiles.of(settings)) is not None:
            tls.context()
    except TlsError as error:
        fail(str(error))
    try:
        listener = listen(settings.host, settings.port)
    except OSError as error:
        fail(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}. "
            "Choose another with --port or CONVEYOR_PORT"
        )
    with listener:
        _require_guard(settings, listener)
        if settings.workers == 1:
            _serve_here(settings, listener, trials)
        else:
            _serve_in_workers(settings, listener)


def _with_open_files(settings: Settings) -> Settings:
    """Return settings with no more connections than there may be open files for; tell where that is fewer."""
    room = open_files.allow(settings.max_connections)
    if room < settings.max_connections:
        log.warning("fewer connections than settings allow: raise the limit of open files", max_connections=room)
    return settings.model_copy(update={"max_connections": room})


def _require_guard(settings: Settings, listener: socket) -> None:
    """End with an error where others could reach a service that asks nobody who they are."""
    address = listener.getsockname()[0]
    if not (settings.authenticates or settings.allow_anybody or ip_address(address).is_loopback):
        fail(
            f"{address} can be reached by others, and nobody would have to say who they are. Give keys or tokens with "
            "CONVEYOR_API_KEYS (see conveyor keys) or CONVEYOR_JWT_KEYS, listen on 127.0.0.1, or allow it with "
            "--allow-anybody or CONVEYOR_ALLOW_ANYBODY=true"
        )


def _serve_here(settings: Settings, listener: socket, trials: Trials | None) -> None:
    async def announce(services: Services) -> None:
        typer.echo(await describe(_url(settings, listener), services))

    Server(Config(create_app(settings, announce, trials=trials), settings)).run([listener])


def _serve_in_workers(settings: Settings, listener: socket) -> None:
    """Run workers over one store, which this process keeps where it is a private one."""

    async def start_store(stack: AsyncExitStack) -> Settings:
        if settings.redis_url is not None:
            return settings
        url, description = await embedded_redis(settings, stack)
        return settings.model_copy(update={"redis_url": url, "store_description": description})

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            given = runner.run(start_store(stack))
            if given.redis_url == "memory://":
                fail("several workers need a Redis to share: install redis-server, or set CONVEYOR_REDIS_URL")
            try:
                shared = stack.enter_context(shared_folder())
            except OSError as error:
                fail(f"the workers need a folder for temporary files: {error}. Choose one with TMPDIR")
            workers = Workers(
                Config(partial(create_worker, given, _url(given, listener), shared), given, factory=True),
                listener,
                silence_s=given.worker_timeout_s,
                grace_s=given.drain_delay_s + given.drain_timeout_s + SERVER_ENDS_WITHIN_S,
                on_ready=lambda: typer.echo((shared / BANNER).read_text()),
            )
            workers.run()
            if workers.start_failed:
                sys.exit(STARTUP_FAILURE)
        except StartupError as error:
            fail(str(error))
        finally:
            runner.run(stack.aclose())


def _url(settings: Settings, listener: socket) -> str:
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104  # nosec B104
    return f"{'https' if settings.tls_certificate else 'http'}://{host}:{port}"
