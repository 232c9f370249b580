"""``python -m model_export``: train, export, verify, backtest, simulate.

Modules that load torch, pandas or matplotlib are imported where they are used, so that ``--help`` answers at once.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console

from model_export import options
from model_export.errors import ModelExportError, VerificationError

# What shells give for a command that Ctrl-C ended.
INTERRUPTED = 130

app = typer.Typer(help="Train recurrent forecasters and export them for streaming.")


@app.command()
def train(
    out: options.Out,
    csv: options.Csv = None,
    time: options.Time = "time",
    features: options.Features = None,
    targets: options.Targets = None,
    units: options.Units = None,
    demo: options.Demo = False,
    days: options.Days = 730,
    horizon: options.Horizon = 24,
    quantiles: options.Quantiles = "0.1,0.5,0.9",
    split: options.SplitSizes = "0.6,0.2,0.2",
    cell: options.Cell = "lstm",
    layers: options.Layers = 2,
    hidden: options.Hidden = 64,
    dropout: options.Dropout = 0.1,
    residual: options.Residual = True,
    epochs: options.Epochs = 60,
    patience: options.Patience = 10,
    streams: options.Streams = 32,
    window: options.Window = 96,
    learning_rate: options.LearningRate = 3e-3,
    weight_decay: options.WeightDecay = 1e-2,
    clip: options.Clip = 1.0,
    season: options.Season = None,
    seed: options.Seed = 0,
    description: options.Description = "",
) -> None:
    """Train a forecaster on a CSV file, or on the simulated transformer with --demo, into a run folder."""
    from model_export.config import TrainConfig
    from model_export.source import load_training

    source = load_training(csv, time, features, targets, units, demo=demo, days=days, seed=seed)
    config = TrainConfig(
        features=source.features,
        targets=source.targets,
        horizon=horizon,
        quantiles=options.numbers("--quantiles", quantiles),
        split=options.three("--split", split),
        cell=cell,
        layers=layers,
        hidden=hidden,
        dropout=dropout,
        residual=residual,
        seed=seed,
        epochs=epochs,
        patience=patience,
        streams=streams,
        window=window,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        clip=clip,
        season=season,
        description=description or source.description,
    )
    from model_export.report import print_run
    from model_export.train import train as run_training

    run = run_training(config, source.load(), out, source.name, Console(stderr=True))
    print_run(run, _console())


@app.command()
def export(
    run: options.RunFolder,
    to: options.To,
    force: options.Force = False,
    quantize: options.Quantize = None,
    csv: options.Csv = None,
    time: options.Time = "time",
    demo: options.Demo = False,
    days: options.Days = 730,
    seed: options.Seed = 0,
) -> None:
    """Write a run as TO/model.onnx, verified against PyTorch; with --quantize int8 also what that costs."""
    from model_export.export import export_int8, export_run, run_spec
    from model_export.report import print_quantization, print_verification
    from model_export.run import Run
    from model_export.source import load_backtest

    path, console = to / "model.onnx", _console()
    options.require_quantization(quantize, csv, demo=demo)
    loaded = Run.load(run)
    if quantize is None:
        print_verification(export_run(loaded, path, force=force), console)
    else:
        series = load_backtest(run_spec(loaded), csv, time, demo=demo, days=days, seed=seed)
        found = export_int8(loaded, series, path, force=force)
        print_verification(found.report, console)
        print_quantization(found, console)
    console.print(f"wrote {path} ({path.stat().st_size:,} bytes)", soft_wrap=True, highlight=False)


@app.command()
def verify(model: options.ModelFile, run: options.TeacherRun = None) -> None:
    """Check what a model file promises; with --run also that it agrees with PyTorch. Exit status 1 when it does not."""
    from model_export.export import teacher
    from model_export.report import print_verification
    from model_export.run import Run
    from model_export.verify import verify as run_checks

    report = run_checks(model, None if run is None else teacher(Run.load(run)))
    print_verification(report, _console())
    if run is None:
        _console().print("skipped the comparison with PyTorch: give --run", highlight=False)
    report.require()


@app.command()
def backtest(
    model: options.ModelFile,
    csv: options.Csv = None,
    time: options.Time = "time",
    demo: options.Demo = False,
    days: options.Days = 730,
    seed: options.Seed = 0,
    rows: options.Rows = None,
    split: options.SplitPart = None,
    season: options.Season = None,
    warm_up: options.WarmUp = 512,
    plot: options.Plot = Path("backtest.png"),
    to_json: options.ToJson = None,
    server: options.Server = None,
) -> None:
    """Stream a CSV file through a model file and score its forecasts beside persistence and seasonal naive.

    With --server, it is streamed through the running service that serves that file, one timestep to a message.
    """
    from model_export import backtest as backtesting
    from model_export import plots
    from model_export.report import print_backtest
    from model_export.runtime import StreamingModel
    from model_export.served import stream_served
    from model_export.source import load_backtest

    opened = StreamingModel(model)
    series = load_backtest(opened.spec, csv, time, demo=demo, days=days, seed=seed)
    chosen = backtesting.select_rows(rows, split, opened.spec, len(series))
    through = None if server is None else partial(stream_served, server, model, opened.spec)
    reports = backtesting.backtest(opened, series, chosen, warm_up=warm_up, season=season, through=through)
    for report in reports:
        print_backtest(report, _console())
        path = plot if len(reports) == 1 else plot.with_stem(f"{plot.stem}_{report.name}")
        title = f"{report.name}, rows {chosen.start} to {chosen.stop - 1}: {len(report.at):,} forecasts"
        plots.errors_by_horizon(report.scores, title, report.unit, path)
        _console().print(f"wrote {path}", soft_wrap=True, highlight=False)
    if to_json is not None:
        document = {report.name: report.to_json() for report in reports}
        to_json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


@app.command()
def simulate(to: options.CsvOut, days: options.Days = 730, seed: options.Seed = 0) -> None:
    """Write the simulated transformer as a CSV file, a row every 15 minutes."""
    from model_export.series import demo_series, write_csv

    series = demo_series(days, seed)
    write_csv(series, to)
    _console().print(f"wrote {to} ({len(series):,} rows)", soft_wrap=True, highlight=False)


def _console() -> Console:
    # Tables are as wide as they are when somebody reads them from a file or a pipe.
    return Console() if sys.stdout.isatty() else Console(width=160)


def main() -> None:
    """The command line. Exit status: 0 done, 1 a model file failed its verification, 2 an input that is not right."""
    try:
        sys.exit(app(standalone_mode=False))
    except typer.Abort:
        sys.exit(INTERRUPTED)
    except typer.TyperException as error:
        _fail(error.format_message(), 2)
    except ModelExportError as error:
        _fail(str(error), 1 if isinstance(error, VerificationError) else 2)


def _fail(message: str, status: int) -> NoReturn:
    print("error:", " ".join(message.split()), file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
