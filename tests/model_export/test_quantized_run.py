"""An int8 file of a training run tells what its rounding costs on the rows that the run was tested on."""

from pathlib import Path

import pytest
from small_runs import small_config, waves

from model_export.errors import InputError
from model_export.export import export_int8, teacher
from model_export.run import Run
from model_export.runtime import StreamingModel
from model_export.series import Series
from model_export.train import train
from model_export.verify import verify


def test_a_run_is_judged_by_its_test_rows(small_run: tuple[Run, Path], tmp_path: Path) -> None:
    run, path = small_run[0], tmp_path / "model.onnx"
    found = export_int8(run, waves(600), path)
    assert found.rows == 600
    assert found.float_scores["target"]["mae"] == pytest.approx(run.metrics["test"]["target"]["model"]["mae"], rel=1e-4)
    assert found.scores["target"]["mae"] != found.float_scores["target"]["mae"]
    assert found.scores["target"]["mae"] == pytest.approx(found.float_scores["target"]["mae"], rel=0.05)
    assert found.deviations[0].scale == run.data.scaling["target"].std
    told = StreamingModel(path).spec.metrics["quantization"]
    assert told == found.to_json()
    report = verify(path, teacher(run))
    assert [(check.name, check.passed) for check in report.checks][-1] == (
        "2,000 carried steps stay close to PyTorch",
        True,
    )


def test_an_int8_file_of_another_network_is_not_close(small_run: tuple[Run, Path], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export_int8(small_run[0], waves(600), path)
    other = train(small_config(seed=4, residual=False, epochs=1), waves(600), tmp_path / "other", "waves")
    assert [check.name for check in verify(path, teacher(other)).checks if not check.passed] == [
        "2,000 carried steps stay close to PyTorch"
    ]


def test_the_rows_have_to_be_those_of_the_training(small_run: tuple[Run, Path], tmp_path: Path) -> None:
    series = waves(600)
    shifted = Series(
        {**series.columns, "target": series.columns["target"] + 1}, series.times, series.period_s, series.units
    )
    for given, message in (
        (waves(599), "tested on 600 rows, these are 599"),
        (shifted, "column 'target' is not the one that the run was trained on"),
    ):
        with pytest.raises(InputError, match=message):
            export_int8(small_run[0], given, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
