"""``python -m model_export`` as people call it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from small_runs import waves

from model_export.__main__ import main
from model_export.runtime import StreamingModel
from model_export.series import write_csv

ROOT = Path(__file__).parents[2]


def call(line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "model_export", *line.split()]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


def done(line: str, cwd: Path) -> str:
    result = call(line, cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout


def in_process(line: str, cwd: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """The same without the seconds that a process takes to import torch. Returns the exit status."""
    monkeypatch.chdir(cwd)
    monkeypatch.setattr(sys, "argv", ["conveyor-export", *line.split()])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table, a run trained on it by the command line, and its export."""
    folder = tmp_path_factory.mktemp("cli")
    write_csv(waves(600), folder / "waves.csv")
    done(
        "train --csv waves.csv --features driver,target --targets target,driver --units target=°C --horizon 4 "
        "--quantiles 0.1,0.5,0.9 --cell gru --layers 2 --hidden 8 --streams 4 --window 24 --epochs 2 --seed 1 "
        "--split 360,120,120 --out runs/waves",
        folder,
    )
    done("export runs/waves --to models/waves/1", folder)
    return folder


MODEL = "models/waves/1/model.onnx"


def test_the_exported_file_describes_itself(workplace: Path) -> None:
    spec = StreamingModel(workplace / MODEL).spec
    table = waves(600)
    assert [(feature.name, feature.unit) for feature in spec.features] == [("driver", ""), ("target", "°C")]
    assert spec.features[0].minimum == pytest.approx(table.columns["driver"][:360].min())
    assert spec.features[0].maximum == pytest.approx(table.columns["driver"][:360].max())
    assert [(output.name, output.tensor, output.shape) for output in spec.outputs] == [
        ("target", "forecast_target", (4, 3)),
        ("driver", "forecast_driver", (4, 3)),
    ]
    horizon, quantile = spec.outputs[0].axes
    assert (horizon.name, horizon.labels) == ("horizon", (1, 2, 3, 4))
    assert (quantile.name, quantile.labels) == ("quantile", (0.1, 0.5, 0.9))
    assert [(state.name, state.shape, state.batch_axis) for state in spec.states] == [("hidden", (2, 8), 1)]
    assert spec.sampling_period_s == 3600
    assert (spec.training["cell"], spec.training["layers"], spec.training["hidden"]) == ("gru", 2, 8)
    assert len(spec.training["digest"]) == 64
    assert spec.metrics["test"]["target"]["model"]["mae"] > 0
    assert [path.name for path in (workplace / "models/waves/1").iterdir()] == ["model.onnx"]
    onnx.checker.check_model(workplace / MODEL)


def test_verify(workplace: Path) -> None:
    alone = done(f"verify {MODEL}", workplace)
    assert "skipped the comparison with PyTorch" in alone
    assert done(f"verify {MODEL} --run runs/waves", workplace).count("ok") == 4


def test_verify_fails_with_status_1(workplace: Path) -> None:
    model = onnx.load(workplace / MODEL)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(model, workplace / "fixed.onnx")
    result = call("verify fixed.onnx", workplace)
    assert result.returncode == 1
    assert "FAILED batch and time are dynamic" in result.stdout
    assert result.stderr.startswith("error: the model file fails its verification")


def test_backtest(workplace: Path) -> None:
    output = done(
        f"backtest {MODEL} --csv waves.csv --rows 480:600 --season 24 --plot bt.png --json bt.json",
        workplace,
    )
    figures = json.loads((workplace / "bt.json").read_text())
    assert f"{figures['target']['model']['mean']['mae']:.3f}" in output
    assert all(name in output for name in ("persistence", "seasonal naive", "MASE", "(std.)", "117 forecasts"))
    for name in ("bt_target.png", "bt_driver.png"):
        assert (workplace / name).read_bytes().startswith(b"\x89PNG")


def test_a_version_is_not_overwritten_without_force(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (workplace / MODEL).read_bytes()
    assert in_process("export runs/waves --to models/waves/1", workplace, monkeypatch) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "--force" in said.err
    assert (workplace / MODEL).read_bytes() == before
    assert not in_process("export runs/waves --to models/waves/1 --force", workplace, monkeypatch)
    # Neither time nor place of the export is in the file.
    assert (workplace / MODEL).read_bytes() == before


def test_an_int8_export_says_what_it_costs(workplace: Path) -> None:
    output = done("export runs/waves --to models/waves/2 --quantize int8 --csv waves.csv", workplace)
    assert "ok     int8: 600 carried steps stay close to float32: target differs by" in output
    assert "°C in the mean" in output
    assert "target: test rows, int8 beside float32" in output
    assert "driver: test rows, int8 beside float32" in output
    told = StreamingModel(workplace / "models/waves/2/model.onnx").spec.metrics["quantization"]
    assert f"{told['test']['driver']['int8']['pinball']:.4f}" in output
    verified = done("verify models/waves/2/model.onnx --run runs/waves", workplace)
    assert "ok     2,000 carried steps stay close to PyTorch: target differs by" in verified


def test_simulate_writes_a_table(tmp_path: Path) -> None:
    assert "192 rows" in done("simulate --days 2 --seed 5 --to demo.csv", tmp_path)
    assert (tmp_path / "demo.csv").read_text().startswith("time,load,ambient,top_oil,hot_spot,cooling_stage,hour_sin")


CSV = "train --csv waves.csv --features driver,target --targets target --out new"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train --out new", "either --csv FILE or --demo is needed"),
        ("train --demo --csv waves.csv --out new", "not both"),
        ("train --demo --features a --out new", "--demo: has its own columns"),
        ("train --csv waves.csv --targets target --out new", "needs --features and --targets"),
        ("train --csv absent.csv --features a --targets a --out new", "absent.csv: no such file"),
        ("train --csv waves.csv --features gas --targets target --out new", "no column 'gas'"),
        (f"{CSV} --time when", "no column 'when'"),
        (f"{CSV} --quantiles 0.1,x", "--quantiles 0.1,x: numbers separated by commas"),
        (f"{CSV} --quantiles 0.9,0.1", "they have to rise"),
        (f"{CSV} --split 0.5,0.5", "three numbers are needed, not 2"),
        (f"{CSV} --split 600,100,100", "800 rows are needed, the series has 600"),
        (f"{CSV} --cell mamba", "one of lstm, gru, rnn"),
        (f"{CSV} --horizon 0", "--horizon 0: at least 1"),
        (f"{CSV} --epochs many", "--epochs"),
        (f"{CSV} --colour red", "--colour"),
        ("train --demo", "--out"),
        (f"{CSV} --units gas=kW", "neither a feature nor a target"),
        (f"{CSV} --units kW", "column=unit is needed"),
        (CSV, "too few for 32 streams of 96 rows"),
        (f"{CSV} --streams 4 --window 24 --epochs 1 --out .", "exists and is no run folder"),
        ("export absent --to models/x/1", "no run folder"),
        ("export runs/waves --to new --quantize int4 --csv waves.csv", "--quantize int4: int8 is what there is"),
        ("export runs/waves --to new --quantize int8", "--quantize int8: needs the rows of the training"),
        ("export runs/waves --to new --csv waves.csv", "an export needs rows only to judge --quantize int8"),
        ("export runs/waves --to new --quantize int8 --csv waves.csv --demo", "not both"),
        ("export runs/waves --to new --quantize int8 --demo --days 9", "no column 'driver'"),
        ("verify absent.onnx", "absent.onnx: no such file"),
        (f"backtest {MODEL} --csv waves.csv --rows 1:2:3", "START:STOP is needed"),
        (f"backtest {MODEL} --demo", "no column 'driver'"),
    ],
)
def test_a_bad_input_is_one_line_and_status_2(
    workplace: Path, arguments: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_process(arguments, workplace, monkeypatch) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (workplace / "new").exists()


def test_help_loads_no_torch(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv = ['conveyor-export', 'train', '--help']\n"
        "from model_export.__main__ import main\n"
        "try:\n    main()\nfinally:\n    print('loaded', *{'torch', 'pandas', 'matplotlib'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1].strip() == "loaded"
