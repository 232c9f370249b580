"""What the commands share: their options, the settings made of them, and how they end when something is wrong."""

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError

from service.settings import Settings

ModelsFolder = Annotated[Path | None, typer.Option("--models", help="Folder of models: <name>/<version>/model.onnx.")]
RedisUrl = Annotated[
    str | None, typer.Option(help="redis://, rediss://, unix://, redis+sentinel://, redis+cluster:// or memory://.")
]
DataDir = Annotated[Path | None, typer.Option(help="Folder of the private redis-server, where no Redis is named.")]


def settings_of(**options: Any) -> Settings:
    """Return the settings: options that were given, then the environment, then defaults. Ends with a clear error."""
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        for item in error.errors():
            if not item["loc"]:
                fail(str(item["msg"]))
            name = ".".join(map(str, item["loc"]))
            option = f" (or --{name.replace('_', '-')})" if name in options else ""
            typer.echo(f"CONVEYOR_{name.upper()}{option}: {item['msg']}", err=True)
        sys.exit(2)


def fail(message: str) -> NoReturn:
    """End the command with an error."""
    typer.echo(message, err=True)
    sys.exit(1)
