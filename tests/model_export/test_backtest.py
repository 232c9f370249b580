"""Backtests stream through the exported file, and score it by formulas that are checked by hand here."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import waves

from model_export.backtest import backtest, select_rows, stream
from model_export.baselines import default_season, persistence, seasonal_error, seasonal_naive
from model_export.errors import InputError
from model_export.export import export_run
from model_export.run import Run
from model_export.runtime import StreamingModel
from model_export.scoring import compare, origins, score, standardised
from model_export.series import Series


@pytest.fixture(scope="module")
def model(small_run: tuple[Run, Path], tmp_path_factory: pytest.TempPathFactory) -> StreamingModel:
    path = tmp_path_factory.mktemp("models") / "model.onnx"
    export_run(small_run[0], path)
    return StreamingModel(path)


def test_baselines_by_hand() -> None:
    y = np.arange(10, dtype=np.float32)
    assert persistence(y, range(4, 6), 3).tolist() == [[4, 4, 4], [5, 5, 5]]
    # From row 4, a season of 2: row 5 is like 3, row 6 like 4, and row 7 like 3 again, since 5 is not known yet.
    assert seasonal_naive(y, range(4, 5), 3, season=2).tolist() == [[3, 4, 3]]
    assert seasonal_error(y, 3) == 3
    with pytest.raises(InputError, match="repeats itself exactly"):
        seasonal_error(np.zeros(10, np.float32), 2)
    with pytest.raises(InputError, match="needs 11"):
        seasonal_error(y, 10)


def test_a_season_is_a_day() -> None:
    assert (default_season(3600), default_season(900)) == (24, 96)
    for period in (7 * 3600, 86400, None):
        with pytest.raises(InputError, match="--season is needed"):
            default_season(period)


def test_scores_by_hand() -> None:
    quantiles = np.array([[[1, 2, 5]], [[0, 3, 4]]], np.float32)
    truth = np.array([[4], [5]], np.float32)
    scores = score(quantiles, (0.1, 0.5, 0.9), truth, seasonal_mae=4.0)
    assert (scores.mae[0], scores.mse[0], scores.mase[0]) == (2.0, 4.0, 0.5)
    by_hand = [0.1 * 3, 0.5 * 2, 0.1 * 1, 0.1 * 5, 0.5 * 2, 0.9 * 1]
    assert scores.pinball[0] == pytest.approx(sum(by_hand) / 6)
    assert scores.coverage == 0.5
    assert [standardised(metric, 8.0, 2.0) for metric in ("mae", "mse", "mase", "pinball")] == [4, 2, 8, 4]


def test_every_target_of_a_forecast_lies_in_the_rows() -> None:
    at = origins(range(11520, 14400), 24)
    assert (at.start + 1, at[-1] + 24, len(at)) == (11520, 14399, 2857)
    y = np.sin(np.arange(200, dtype=np.float32))
    perfect = np.stack([y[row + 1 : row + 5] for row in origins(range(100, 150), 4)])[..., None]
    scores = compare(perfect, (0.5,), y, range(100, 150), season=24)
    assert scores["model"].mae.tolist() == [0, 0, 0, 0]
    assert scores["persistence"].mae.min() > 0


def test_streaming_the_file_equals_pytorch(model: StreamingModel, small_run: tuple[Run, Path]) -> None:
    network = small_run[0].network
    x = waves(600).matrix(network_features := model.spec.feature_names)
    assert network_features == ("driver", "target")
    (found,) = stream(model, x)
    with torch.no_grad():
        expected, _ = network(torch.from_numpy(x)[None], (torch.zeros(1, 1, 8), torch.zeros(1, 1, 8)))
    assert found.shape == (600, 4, 3)
    np.testing.assert_allclose(found, expected["target"][0], atol=1e-5 * small_run[0].data.scaling["target"].std)


def test_a_backtest_repeats_the_test_scores_of_the_training(model: StreamingModel, small_run: tuple[Run, Path]) -> None:
    rows = select_rows(None, None, model.spec, 600)
    assert rows == range(480, 600)
    (report,) = backtest(model, waves(600), rows)
    told = small_run[0].metrics["test"]["target"]
    for name, scores in report.scores.items():
        assert scores.mae.mean() == pytest.approx(told[name]["mae"], rel=1e-5)
        assert scores.pinball.mean() == pytest.approx(told[name]["pinball"], rel=1e-5)
    assert (report.std, report.unit) == (small_run[0].data.scaling["target"].std, "°C")
    document = report.to_json()
    assert document["model"]["standardised_mean"]["mse"] == pytest.approx(
        document["model"]["mean"]["mse"] / report.std**2
    )
    assert document["forecasts"] == 117


def test_a_cold_state_forecasts_otherwise(model: StreamingModel) -> None:
    warm, cold = (backtest(model, waves(600), range(480, 490), warm_up=rows)[0] for rows in (400, 0))
    assert not np.array_equal(warm.quantiles, cold.quantiles)
    assert np.array_equal(warm.scores["persistence"].mae, cold.scores["persistence"].mae)


def test_rows_by_hand_and_by_split(model: StreamingModel) -> None:
    spec = model.spec
    assert select_rows("480:500", None, spec, 600) == range(480, 500)
    assert select_rows("480:", None, spec, 600) == range(480, 600)
    assert select_rows(None, "validation", spec, 600) == range(360, 480)
    for text, split, message in (
        ("480:500", "test", "not both"),
        ("480", None, "START:STOP"),
        ("a:b", None, "START:STOP"),
        ("-5:10", None, "START:STOP"),
        (None, "train", "validation or test"),
    ):
        with pytest.raises(InputError, match=message):
            select_rows(text, split, spec, 600)


def test_bad_backtests(model: StreamingModel) -> None:
    series = waves(600)
    hourly = Series(series.columns, series.times, 60.0, series.units)
    for rows, options, message in (
        (range(480, 700), {}, "the series has 600 rows"),
        (range(480, 482), {}, "at least 4 rows are needed"),
        (range(20, 100), {}, "a season of 24 needs at least 25 rows before"),
        (range(480, 500), {"season": 0}, "--season 0"),
        (range(480, 500), {"warm_up": -1}, "--warm-up -1"),
    ):
        with pytest.raises(InputError, match=message):
            backtest(model, series, rows, **options)
    with pytest.raises(InputError, match="a row every 60 s, the model was trained at 3600 s"):
        backtest(model, hourly, range(480, 500))
