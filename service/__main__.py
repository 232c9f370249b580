"""The command line: ``conveyor`` or ``python -m service``."""

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from socket import socket
from typing import Annotated

import typer
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from service import logs, session_commands
from service.adapters.model_repository import ModelRepository
from service.api.dependencies import Services
from service.api.schemas import model_info
from service.app import StartupError, create_app, embedded_redis
from service.banner import banner
from service.options import DataDir, ModelsFolder, RedisUrl, fail, settings_of
from service.server import Config, listen
from service.settings import Settings

cli = typer.Typer(
    help="Streaming inference for recurrent models. Options are environment variables too: --port is CONVEYOR_PORT.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cli.add_typer(session_commands.cli, name="sessions")


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 lets the system choose.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that serve on the port.")] = None,
    models: ModelsFolder = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="console or json.")] = None,
    access_log: Annotated[bool | None, typer.Option(help="Log every request.")] = None,
) -> None:
    """Serve models."""
    settings = settings_of(
        host=host,
        port=port,
        workers=workers,
        models=models,
        redis_url=redis_url,
        data_dir=data_dir,
        log_level=log_level,
        log_format=log_format,
        access_log=access_log,
    )
    logs.configure(settings.log_level, settings.log_format)
    try:
        listener = listen(settings.host, settings.port)
    except OSError as error:
        fail(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}. "
            "Choose another with --port or CONVEYOR_PORT"
        )
    with listener:
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
    repository = ModelRepository.load(settings.models, max_batch=1)
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


def _serve_here(settings: Settings, listener: socket) -> None:
    async def announce(services: Services) -> None:
        health = await services.store.health()
        typer.echo(banner(_url(listener), health.description, list(services.models)))

    uvicorn.Server(Config(create_app(settings, announce), settings)).run([listener])


def _serve_in_workers(settings: Settings, listener: socket) -> None:
    """Run workers that are told their settings by the environment, over one store that this process keeps."""

    async def start_store(stack: AsyncExitStack) -> dict[str, str]:
        if settings.redis_url is not None:
            return {}
        url, description = await embedded_redis(settings, stack)
        return {"redis_url": url, "store_description": description}

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            store = runner.run(start_store(stack))
            given = settings.model_dump(mode="json", exclude_none=True) | store
            if given["redis_url"] == "memory://":
                fail("several workers need a Redis to share: install redis-server, or set CONVEYOR_REDIS_URL")
            os.environ.update({f"CONVEYOR_{name.upper()}": str(value) for name, value in given.items()})
            typer.echo(f"\n  Conveyor starts {settings.workers} workers on {_url(listener)}\n")
            supervisor = Multiprocess(Config("service.app:create_worker", settings), [listener])
            supervisor.run()
            if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
                sys.exit(STARTUP_FAILURE)
        except StartupError as error:
            fail(str(error))
        finally:
            runner.run(stack.aclose())


def _url(listener: socket) -> str:
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{host}:{port}"


def main() -> None:
    """Entry point of the console script."""
    cli()


if __name__ == "__main__":
    main()
