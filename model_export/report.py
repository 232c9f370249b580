"""What the command line prints: a verification, a finished training, and a backtest's tables."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from model_export.backtest import TargetReport
from model_export.quantized_export import Quantized
from model_export.run import Run
from model_export.scoring import METRICS, Means, standardised, summary
from model_export.verify import Report

# Beyond this many horizons a table shows an evenly spaced selection.
SHOWN_HORIZONS = 24
TITLES = {"mae": "MAE", "mse": "MSE", "mase": "MASE", "pinball": "pinball"}


def print_verification(report: Report, console: Console) -> None:
    for check in report.checks:
        mark = "[green]ok[/]    " if check.passed else "[red]FAILED[/]"
        console.print(f"{mark} {check.name}: {check.detail}", soft_wrap=True, highlight=False)


def print_quantization(found: Quantized, console: Console) -> None:
    """What int8 costs: for each target the scores of the test rows, and how they change."""
    for deviation in found.deviations:
        name = deviation.name
        table = Table(title=f"{name}: test rows, int8 beside float32", title_justify="left")
        table.add_column("mean over the horizon")
        for column in ("float32", "int8", "change"):
            table.add_column(column, justify="right")
        for metric in METRICS:
            before, after = found.float_scores[name][metric] or 0.0, found.scores[name][metric] or 0.0
            change = f"{after / before - 1:+.2%}" if before else ""
            table.add_row(_title(metric, deviation.unit), f"{before:.4f}", f"{after:.4f}", change)
        console.print(table)


def print_run(run: Run, console: Console) -> None:
    """The epoch whose weights were kept, and the scores of the test rows."""
    metrics, data = run.metrics, run.data
    console.print(
        f"kept epoch {metrics['best_epoch']} of {metrics['epochs']}, validation pinball "
        f"{metrics['validation_pinball']:.4f} in scaled units, {metrics['seconds']:.0f} s",
        highlight=False,
    )
    for name, means in metrics["test"].items():
        print_means(f"{name}: test rows", data.units[name], data.scaling[name].std, means, console)


def print_backtest(report: TargetReport, console: Console) -> None:
    """The means over the horizons, then each metric by horizon: model / persistence / seasonal naive."""
    title = f"{report.name}: {len(report.at):,} forecasts"
    print_means(title, report.unit, report.std, summary(report.scores), console)
    horizon = report.quantiles.shape[1]
    table = Table(title=f"{report.name}: {' / '.join(report.scores)}", title_justify="left")
    table.add_column("steps ahead", justify="right")
    for metric in METRICS:
        table.add_column(_title(metric, report.unit), justify="right")
    for step in range(0, horizon, -(-horizon // SHOWN_HORIZONS)):
        cells = [
            " / ".join(f"{getattr(each, metric)[step]:.2f}" for each in report.scores.values()) for metric in METRICS
        ]
        table.add_row(str(step + 1), *cells)
    console.print(table)


def print_means(title: str, unit: str, std: float | None, means: Mapping[str, Means], console: Console) -> None:
    """One row per forecaster: metrics averaged over the horizons, in raw units and, with `std`, standardised."""
    table = Table(title=title, title_justify="left")
    table.add_column("mean over the horizon")
    for metric in METRICS:
        table.add_column(_title(metric, unit), justify="right")
    scaled = ("mae", "mse", "pinball") if std is not None else ()
    for metric in scaled:
        table.add_column(f"{TITLES[metric]} (std.)", justify="right")
    table.add_column("coverage", justify="right")
    for forecaster, values in means.items():
        raw = [f"{values[metric]:.3f}" for metric in METRICS]
        relative = [f"{standardised(metric, values[metric] or 0.0, std or 1.0):.4f}" for metric in scaled]
        coverage = values["coverage"]
        table.add_row(forecaster, *raw, *relative, "" if coverage is None else f"{coverage:.1%}")
    console.print(table)


def _title(metric: str, unit: str) -> str:
    if not unit or metric == "mase":
        return TITLES[metric]
    return f"{TITLES[metric]} ({unit})" + ("²" if metric == "mse" else "")
