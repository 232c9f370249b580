"""A finished run as a model file: its `ModelSpec`, and the export itself."""

from pathlib import Path

from model_export.flat import FlatModule, initial_states
from model_export.run import Run
from model_export.specification import describe
from model_export.streaming import export_streaming
from model_export.verify import Report
from service.core.spec import Axis, Feature, ModelSpec, Output


def export_run(run: Run, path: Path, *, force: bool = False) -> Report:
    """Write `run` to `path`, verified; raises as `export_streaming` does."""
    return export_streaming(run.network, run_spec(run), path, force=force)


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
