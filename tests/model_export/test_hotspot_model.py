"""The bundled demo model, and the real table that it was not made from."""

from pathlib import Path

import pytest
from small_runs import small_config

from model_export.backtest import backtest
from model_export.export import export_run
from model_export.runtime import StreamingModel
from model_export.series import demo_series, read_csv
from model_export.simulator import UNITS
from model_export.train import train
from model_export.verify import verify

HOTSPOT = Path(__file__).parents[2] / "models/hotspot/1/model.onnx"


def test_the_bundled_model_verifies() -> None:
    report = verify(HOTSPOT)
    assert [check.name for check in report.checks if not check.passed] == []


def test_the_bundled_model_is_what_the_documents_say() -> None:
    spec = StreamingModel(HOTSPOT).spec
    assert spec.feature_names == tuple(UNITS)
    assert [feature.unit for feature in spec.features] == list(UNITS.values())
    assert [(output.name, output.shape) for output in spec.outputs] == [("hot_spot", (24, 3))]
    assert spec.outputs[0].axes[1].labels == (0.1, 0.5, 0.9)
    assert [(state.name, state.shape, state.batch_axis) for state in spec.states] == [
        ("hidden", (2, 64), 1),
        ("cell", (2, 64), 1),
    ]
    assert spec.sampling_period_s == 900


def test_the_bundled_model_beats_the_baselines_on_a_transformer_it_has_not_seen() -> None:
    series = demo_series(days=60, seed=12345)
    (report,) = backtest(StreamingModel(HOTSPOT), series, range(96 * 10, len(series)))
    best = min(report.scores[name].mae.mean() for name in ("persistence", "seasonal naive"))
    assert report.scores["model"].mae.mean() < 0.75 * best
    assert 0.6 < (report.scores["model"].coverage or 0) < 0.95


def test_a_real_table(etth1: Path, tmp_path: Path) -> None:
    features = ("HUFL", "MUFL", "OT")
    series = read_csv(etth1, "date", features)
    assert (len(series), series.period_s) == (17420, 3600)
    config = small_config(
        features=features, targets=("OT",), split=(8640, 2880, 2880), horizon=24, hidden=16, window=96, epochs=4
    )
    export_run(train(config, series, tmp_path / "run", etth1.name), tmp_path / "model.onnx")
    (report,) = backtest(StreamingModel(tmp_path / "model.onnx"), series, range(11520, 14400))
    assert len(report.at) == 2857
    # The deviation of the train rows is what ETT tables are standardised with.
    assert report.std == pytest.approx(series.columns["OT"][:8640].std(), rel=1e-5)
    assert report.scores["model"].pinball.mean() < report.scores["seasonal naive"].pinball.mean()
