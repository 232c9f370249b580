"""A finished run as a model file: its `ModelSpec`, and the export itself."""

import tempfile
from collections.abc import Mapping
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np

from model_export.backtest import backtest
from model_export.draft import require_free
from model_export.errors import InputError
from model_export.flat import FlatModule, initial_states
from model_export.quantized_export import Quantized, quantize_file
from model_export.run import Run
from model_export.runtime import Array, StreamingModel
from model_export.scoring import Means, summary
from model_export.series import Series
from model_export.specification import describe
from model_export.split import fit_scaling
from model_export.streaming import export_streaming
from model_export.verify import Report
from service.core.spec import Axis, Feature, ModelSpec, Output


def export_run(run: Run, path: Path, *, force: bool = False) -> Report:
    """Write `run` to `path`, verified; raises as `export_streaming` does."""
    return export_streaming(run.network, run_spec(run), path, force=force)


def export_int8(run: Run, series: Series, path: Path, *, force: bool = False) -> Quantized:
    """Write `run` to `path` with int8 weights, judged by the run's test rows.

    `series` is what the run was trained on. It is streamed through the float32 file and the int8 one from its first row
    to the last test row. The report is that of both files. Raises as `quantize_file` does, and `InputError` for another
    series.
    """
    require_free(path, force)
    _require_same_rows(run, series)
    test = run.data.split.rows("test")

    def judge(model: StreamingModel, outputs: list[Array]) -> Mapping[str, Means]:
        reports = backtest(
            model,
            series,
            test,
            warm_up=test.start,
            season=run.data.season,
            through=lambda fed: [output[: len(fed)] for output in outputs],
        )
        return {report.name: summary(report.scores)["model"] for report in reports}

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.onnx"
        exact = export_run(run, source)
        rows = series.matrix(run.config.features)[: test.stop]
        found = quantize_file(source, path, rows, judge=judge, force=force)
    return replace(found, report=Report((*exact.checks, *found.report.checks)))


def _require_same_rows(run: Run, series: Series) -> None:
    """Raises `InputError` unless the train rows of `series` have the scaling that the run was trained with."""
    if len(series) < (needed := run.data.split.test):
        raise InputError(f"the run was trained and tested on {needed} rows, these are {len(series)}")
    scaling = fit_scaling(series.matrix(run.config.columns)[: run.data.split.train], run.config.columns)
    for name, told in run.data.scaling.items():
        if not np.allclose(astuple(scaling[name]), astuple(told), rtol=1e-5, atol=1e-6 * told.std):
            raise InputError(
                f"column {name!r} is not the one that the run was trained on: its train rows have {scaling[name]}, "
                f"the run's have {told} ({run.data.source})"
            )


def teacher(run: Run) -> FlatModule:
    """The run's network, in the form that `model_export.verify.verify` compares a model file with."""
    return FlatModule(run.network, initial_states(run.network, 1), batch_first=True).eval()


def run_spec(run: Run) -> ModelSpec:
    """What the model file of `run` says about itself."""
    config, data = run.config, run.data
    features = [Feature(name, data.units[name], *data.ranges[name]) for name in config.features]
    axes = (Axis("horizon", tuple(range(1, config.horizon + 1))), Axis("quantile", config.quantiles))
    return describe(
        run.network,
        features,
        outputs=[Output(name, f"forecast_{name}", data.units[name], axes) for name in config.targets],
        sampling_period_s=data.period_s,
        description=config.description,
        metrics={part: run.metrics[part] for part in ("validation", "test")},
        training={
            "source": data.source,
            "cell": config.cell,
            "layers": config.layers,
            "hidden": config.hidden,
            "seed": config.seed,
            "best_epoch": run.metrics["best_epoch"],
            "split": vars(data.split),
            "season": data.season,
            "scaling": {name: vars(scaling) for name, scaling in data.scaling.items()},
            "digest": run.digest,
        },
    )
