"""The command line: ``conveyor`` or ``python -m service``."""

import asyncio
import sys
from contextlib import AsyncExitStack
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from socket import socket
from typing import Annotated

import structlog
import typer
from uvicorn.config import STARTUP_FAILURE

from service import key_commands, logs, open_files, session_commands
from service.api.dependencies import Services
from service.api.schemas import model_info
from service.app import BANNER, create_app, create_worker, describe, load_models
from service.key_commands import ApiKeysFile
from service.options import DataDir, ModelsFolder, RedisUrl, fail, settings_of
from service.server import Config, Server, listen
from service.settings import Settings
from service.stores import StartupError, embedded_redis
from service.tls import TlsError, TlsFiles
from service.workers import Workers, shared_folder

SERVER_ENDS_WITHIN_S = 4.0
"""What a worker's end may take beyond the drain: the last words to sockets, the server's own end, the engine's."""

log = structlog.get_logger(__name__)

cli = typer.Typer(
    help="Streaming inference for recurrent models. Options are environment variables too: --port is CONVEYOR_PORT.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cli.add_typer(key_commands.cli, name="keys")
cli.add_typer(session_commands.cli, name="sessions")


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 lets the system choose.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that serve on the port.")] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="Certificate (PEM) to serve https:// and wss://.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, where that is another file.")] = None,
    tls_client_ca: Annotated[Path | None, typer.Option(help="Who signs clients' certificates: ask for one.")] = None,
    models: ModelsFolder = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    api_keys: ApiKeysFile = None,
    allow_anybody: Annotated[
        bool | None, typer.Option(help="Serve everybody on an address that others can reach, with no keys or tokens.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="console or json.")] = None,
    access_log: Annotated[bool | None, typer.Option(help="Log every request.")] = None,
) -> None:
    """Serve models."""
    settings = settings_of(
        host=host,
        port=port,
        workers=workers,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        tls_client_ca=tls_client_ca,
        models=models,
        redis_url=redis_url,
        data_dir=data_dir,
        api_keys=api_keys,
        allow_anybody=allow_anybody,
        log_level=log_level,
        log_format=log_format,
        access_log=access_log,
    )
    logs.configure(settings.log_level, settings.log_format)
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
            _serve_here(settings, listener)
        else:
            _serve_in_workers(settings, listener)


@cli.command("models")
def list_models(
    models: ModelsFolder = None, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """List the models in the repository, and what is wrong with those that cannot be served."""
    settings = settings_of(models=models)
    logs.configure("critical", settings.log_format)
    repository = load_models(settings, max_batch=1)
    for model in repository:
        if as_json:
            typer.echo(model_info(model, list(repository.versions(model.ref.name))).model_dump_json())
        else:
            outputs = ", ".join(f"{output.name}{list(output.shape)}" for output in model.spec.outputs)
            typer.echo(f"{model.ref.name}/{model.ref.version}\t{', '.join(model.spec.feature_names)} -> {outputs}")
    for failure in repository.failures:
        typer.echo(f"{failure.path}: {failure.reason}", err=True)
    if repository.failures or not list(repository):
        fail(
            f"{len(list(repository))} usable and {len(repository.failures)} unusable in {settings.models.absolute()}; "
            "a model is <name>/<version>/model.onnx there, written by conveyor-export"
        )


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


def _serve_here(settings: Settings, listener: socket) -> None:
    async def announce(services: Services) -> None:
        typer.echo(await describe(_url(settings, listener), services))

    Server(Config(create_app(settings, announce), settings)).run([listener])


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


def main() -> None:
    """Entry point of the console script."""
    cli()


if __name__ == "__main__":
    main()
