"""The command line: ``conveyor`` or ``python -m service``.

What a command needs is imported when it runs: what serves takes a second, in which models are tried out, and for which
nobody has to wait who makes a key.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from service import key_commands, logs, session_commands
from service.key_commands import ApiKeysFile
from service.options import DataDir, ModelsFolder, RedisUrl, fail, settings_of
from service.trials import begin_trials

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
    trials = begin_trials(settings, max_batch=settings.max_batch) if settings.workers == 1 else None
    with trials or nullcontext():
        from service import serving

        serving.serve(settings, trials)


@cli.command("models")
def list_models(
    models: ModelsFolder = None, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """List the models in the repository, and what is wrong with those that cannot be served."""
    settings = settings_of(models=models)
    logs.configure("critical", settings.log_format)
    trials = begin_trials(settings, max_batch=1)
    with trials or nullcontext():
        from service.api.schemas import model_info
        from service.app import load_models

        repository = load_models(settings, max_batch=1, trials=trials)
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


def main() -> None:
    """Entry point of the console script."""
    cli()


if __name__ == "__main__":
    main()
