"""The options of the command line: each one's type and help, named once for all commands."""

from pathlib import Path
from typing import Annotated

import typer

from model_export.errors import InputError

Out = Annotated[Path, typer.Option(help="The run folder to write.")]
Csv = Annotated[Path | None, typer.Option(help="A CSV file with one row per timestep.")]
Time = Annotated[str, typer.Option(help="The CSV file's timestamp column.")]
Features = Annotated[str | None, typer.Option(help="Input columns, separated by commas.")]
Targets = Annotated[str | None, typer.Option(help="Columns to forecast, separated by commas.")]
Units = Annotated[str | None, typer.Option(help="Units of columns, such as load=kW,oil=°C.")]
Demo = Annotated[bool, typer.Option("--demo", help="Use the simulated transformer instead of a CSV file.")]
Days = Annotated[int, typer.Option(help="Days to simulate.")]
Horizon = Annotated[int, typer.Option(help="Timesteps to forecast.")]
Quantiles = Annotated[str, typer.Option(help="Quantile levels, rising, separated by commas.")]
SplitSizes = Annotated[str, typer.Option("--split", help="Train, validation, test: fractions, or row counts.")]
Cell = Annotated[str, typer.Option(help="lstm, gru or rnn.")]
Layers = Annotated[int, typer.Option(help="Recurrent layers.")]
Hidden = Annotated[int, typer.Option(help="Hidden units of each layer.")]
Dropout = Annotated[float, typer.Option(help="Dropout between layers.")]
Residual = Annotated[
    bool, typer.Option(help="Forecast a target that is a feature as a difference to its present value.")
]
Epochs = Annotated[int, typer.Option(help="Passes over the train rows, at most.")]
Patience = Annotated[int, typer.Option(help="Stop after so many epochs without a better validation loss.")]
Streams = Annotated[int, typer.Option(help="Parallel, contiguous streams that the train rows are cut into.")]
Window = Annotated[int, typer.Option(help="Timesteps to back-propagate through.")]
LearningRate = Annotated[float, typer.Option(help="AdamW's learning rate, which falls along a cosine.")]
WeightDecay = Annotated[float, typer.Option(help="AdamW's weight decay.")]
Clip = Annotated[float, typer.Option(help="The gradient's norm is clipped to this.")]
Season = Annotated[int | None, typer.Option(help="Rows of a season, for the seasonal naive baseline. Default: a day.")]
Seed = Annotated[int, typer.Option(help="Seed of everything that is drawn by chance.")]
Description = Annotated[str, typer.Option(help="A sentence for the model file.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder that `train` wrote.")]
TeacherRun = Annotated[Path | None, typer.Option("--run", help="The run folder that the file was exported from.")]
To = Annotated[Path, typer.Option(help="The version's folder, e.g. models/NAME/1.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite an existing version.")]
Quantize = Annotated[
    str | None,
    typer.Option(help="int8: recurrent layers with int8 weights. Needs the rows of the training to judge it."),
]
ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="A model.onnx.")]
Rows = Annotated[str | None, typer.Option(help="Rows to forecast, START:STOP, counted from 0, such as 11520:14400.")]
SplitPart = Annotated[str | None, typer.Option("--split", help="validation or test, as the model was trained. [test]")]
WarmUp = Annotated[int, typer.Option(help="Rows streamed before the first forecast, so that the state is warm.")]
Plot = Annotated[Path, typer.Option(help="Where to write the plot.")]
ToJson = Annotated[Path | None, typer.Option("--json", help="Also write all figures to this file.")]
Server = Annotated[
    str | None, typer.Option(help="Stream through this running service, which serves the file: http://127.0.0.1:8000")
]
CsvOut = Annotated[Path, typer.Option(help="The CSV file to write.")]


def names(text: str) -> tuple[str, ...]:
    """Column names that are separated by commas."""
    return tuple(name.strip() for name in text.split(","))


def numbers(option: str, text: str) -> tuple[float, ...]:
    """Numbers that are separated by commas; raises `InputError` naming `option`."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option} {text}: numbers separated by commas are needed") from None


def three(option: str, text: str) -> tuple[float, float, float]:
    """Three numbers; raises `InputError` naming `option`."""
    found = numbers(option, text)
    if len(found) != 3:
        raise InputError(f"{option} {text}: three numbers are needed, not {len(found)}")
    return found[0], found[1], found[2]


def pairs(option: str, text: str | None) -> dict[str, str]:
    """``name=value`` pairs that are separated by commas; raises `InputError` naming `option`."""
    found = {}
    for part in text.split(",") if text else ():
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise InputError(f"{option} {part}: column=unit is needed")
        found[name.strip()] = value.strip()
    return found


def require_quantization(quantize: str | None, csv: Path | None, *, demo: bool) -> None:
    """Raises `InputError` for a quantisation that there is not, and unless it is judged by rows."""
    if quantize not in (None, "int8"):
        raise InputError(f"--quantize {quantize}: int8 is what there is")
    if quantize is None and (csv is not None or demo):
        raise InputError("--csv and --demo: an export needs rows only to judge --quantize int8")
    if quantize is not None and csv is None and not demo:
        raise InputError("--quantize int8: needs the rows of the training, to say what it costs: --csv FILE or --demo")
