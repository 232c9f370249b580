"""The craft of training: carried states, chronological rows, clipped gradients, early stopping, reproducibility."""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import small_config, waves
from torch import Tensor, nn

from model_export.config import TrainConfig
from model_export.errors import InputError
from model_export.network import Forecaster, pinball_loss, rising
from model_export.run import Run, prepare
from model_export.split import Scaling
from model_export.train import EarlyStopping, stream_windows, train, train_epoch

SCALING = {"driver": Scaling(20.0, 4.0), "target": Scaling(160.0, 11.0)}


def spied(network: Forecaster) -> list[tuple[Any, Any]]:
    """The (given, returned) states of every call of the recurrent layer from now on."""
    calls: list[tuple[Any, Any]] = []
    network.recurrent.register_forward_hook(lambda _, given, result: calls.append((given[1], result[1])))
    return calls


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_the_state_is_carried_from_window_to_window_and_detached(cell: str) -> None:
    config = small_config(cell=cell)
    network = Forecaster(config, SCALING)
    calls = spied(network)
    x, y = torch.randn(400, 2), torch.randn(400, 1, 4)
    train_epoch(network, torch.optim.SGD(network.parameters(), 0.01), x, y, torch.tensor(config.quantiles), config)

    assert len(calls) >= 4
    assert calls[0][0] is None
    for (_, returned), (given, _) in pairwise(calls):
        ends, starts = (state if cell == "lstm" else [state] for state in (returned, given))
        for end, start in zip(ends, starts, strict=True):
            assert torch.equal(end, start)
            assert start.abs().max() > 0
            assert end.requires_grad
            assert not start.requires_grad


def test_windows_are_consecutive_rows_of_contiguous_streams() -> None:
    rows = torch.arange(1000)
    windows = [x for x, _ in stream_windows(rows.unsqueeze(1), rows, streams=5, window=30)]
    streams = torch.cat(windows, dim=1)[..., 0]
    assert streams.shape[0] == 5
    assert (streams.diff(dim=1) == 1).all()
    assert (streams[1:, 0] - streams[:-1, -1] == 1).all()
    assert all(window.shape[1] <= 30 for window in windows)


def test_the_first_row_changes_from_epoch_to_epoch() -> None:
    rows = torch.arange(1000)
    firsts = {int(next(stream_windows(rows, rows, streams=5, window=30))[0][0, 0]) for _ in range(20)}
    assert len(firsts) > 1
    assert max(firsts) < 30


def test_gradients_are_clipped() -> None:
    config = small_config(clip=1e-6)
    network = Forecaster(config, SCALING)
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    x, y = torch.randn(128, 2), 1e3 * torch.randn(128, 1, 4)
    train_epoch(network, torch.optim.SGD(network.parameters(), 1.0), x, y, torch.tensor(config.quantiles), config)
    moved = math.sqrt(sum(float((p - before[name]).detach().square().sum()) for name, p in network.named_parameters()))
    assert 0 < moved < 3e-5


def test_forget_gates_start_open() -> None:
    layer = Forecaster(small_config(layers=2), SCALING).recurrent
    for k in range(2):
        total = getattr(layer, f"bias_ih_l{k}") + getattr(layer, f"bias_hh_l{k}")
        assert (total[8:16] == 1).all()
        assert not (total[:8] == 1).any()


def test_early_stopping_keeps_the_best_weights() -> None:
    network, stopping = nn.Linear(1, 1), EarlyStopping(patience=2)
    for epoch, loss in enumerate([3.0, 1.0, 2.0, 1.0], start=1):
        assert not stopping.should_stop
        nn.init.constant_(network.weight, epoch)
        stopping.observe(epoch, loss, network)
    assert stopping.should_stop
    assert (stopping.epoch, stopping.loss, float(stopping.weights["weight"])) == (2, 1.0, 2.0)
    with pytest.raises(InputError, match="lower --learning-rate"):
        stopping.observe(5, math.nan, network)


def test_quantiles_never_cross() -> None:
    raw = torch.randn(1000, 5) * torch.tensor([1.0, 10.0, 1e3, 1e-3, 1e6])
    assert (rising(raw).diff(dim=-1) >= 0).all()
    # Squareplus alone may be negative here: PyTorch's root of the square may be less than |z|.
    assert rising(torch.tensor([0.0, -378420.8125])).tolist() == [0.0, 0.0]
    network = Forecaster(small_config(quantiles=(0.05, 0.25, 0.5, 0.75, 0.95)), SCALING)
    nn.init.normal_(network.head.weight, std=30)
    with torch.no_grad():
        outputs, _ = network(torch.randn(2, 50, 2) * 100, (torch.zeros(1, 2, 8), torch.zeros(1, 2, 8)))
    assert outputs["target"].shape == (2, 50, 4, 5)
    assert (outputs["target"].diff(dim=-1) >= 0).all()


def test_pinball_loss_by_hand() -> None:
    levels = torch.tensor([0.1, 0.9])
    loss = pinball_loss(torch.tensor([[1.0, 4.0]]), torch.tensor([3.0]), levels)
    # The truth is 2 above the first quantile and 1 below the second.
    assert loss.item() == pytest.approx((0.1 * 2 + 0.1 * 1) / 2)


def test_validation_and_test_rows_do_not_reach_the_weights(tmp_path: Path) -> None:
    config, series = small_config(epochs=1), waves(600)
    one = train(config, series, tmp_path / "one", "waves")
    later = {name: np.where(np.arange(600) < 360, values, values * 7 + 900) for name, values in series.columns.items()}
    other = train(config, type(series)(later, series.times, series.period_s, {}), tmp_path / "other", "waves")
    weights, others = one.network.state_dict(), other.network.state_dict()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert one.data.scaling == other.data.scaling
    train_rows = series.columns["target"][:360].astype(np.float32)
    assert one.data.scaling["target"].mean == pytest.approx(train_rows.mean(dtype=np.float64))
    assert one.data.ranges["target"] == (series.columns["target"][:360].min(), series.columns["target"][:360].max())


def test_a_run_is_reproduced_by_its_seed(small_run: tuple[Run, Path], tmp_path: Path) -> None:
    again = train(small_config(), waves(600), tmp_path / "again", "waves")
    other = train(small_config(seed=4), waves(600), tmp_path / "other", "waves")
    assert again.digest == small_run[0].digest
    assert other.digest != again.digest


def test_a_run_folder_reads_back(small_run: tuple[Run, Path]) -> None:
    run, folder = small_run
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "checkpoint.pt", "metrics.json", "loss.png", "forecast_target.png",
    }  # fmt: skip
    back = Run.load(folder)
    assert (back.config, back.data, back.digest) == (run.config, run.data, run.digest)
    assert json.loads((folder / "metrics.json").read_text())["test"]["target"]["model"]["mae"] > 0
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in ("loss.png", "forecast_target.png"))


def test_damaged_and_foreign_folders(small_run: tuple[Run, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run folder"):
        Run.load(tmp_path)
    for name in ("config.json", "metrics.json"):
        (tmp_path / name).write_bytes((small_run[1] / name).read_bytes())
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="damaged run folder"):
        Run.load(tmp_path)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").touch()
    with pytest.raises(InputError, match="is no run folder"):
        prepare(tmp_path / "letters")


def test_training_beats_both_baselines(tmp_path: Path) -> None:
    run = train(small_config(epochs=30, hidden=16, learning_rate=1e-2), waves(1500), tmp_path / "run", "waves")
    scores = run.metrics["test"]["target"]
    assert scores["model"]["mae"] < 0.9 * min(scores["persistence"]["mae"], scores["seasonal naive"]["mae"])
    assert 0.6 < scores["model"]["coverage"] < 0.95


def test_a_target_need_not_be_a_feature(tmp_path: Path) -> None:
    run = train(small_config(features=("driver",), epochs=1), waves(600), tmp_path / "run", "waves")
    assert run.network.present == [None]
    assert run.network(torch.zeros(1, 2, 1), zeros(1))[0]["target"].shape == (1, 2, 4, 3)


def zeros(batch: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(1, batch, 8), torch.zeros(1, batch, 8)


def test_too_few_rows(tmp_path: Path) -> None:
    for changes, message in (
        ({"streams": 32}, "360 train rows are too few for 32 streams of 24"),
        ({"split": (500, 3, 97)}, "3 validation rows are too few for a horizon of 4"),
        ({"season": 360}, "360 train rows are too few for a season of 360"),
    ):
        with pytest.raises(InputError, match=message):
            train(small_config(**changes), waves(600), tmp_path / "run", "waves")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": ()}, "--features: at least one"),
        ({"features": ("a", "a")}, "--features: 'a' is there more than once"),
        ({"targets": ("a", "")}, "--targets: at least one"),
        ({"cell": "transformer"}, "--cell transformer: one of lstm, gru, rnn"),
        ({"horizon": 0}, "--horizon 0: at least 1"),
        ({"layers": 0}, "--layers 0"),
        ({"hidden": -1}, "--hidden -1"),
        ({"epochs": 0}, "--epochs 0"),
        ({"patience": 0}, "--patience 0"),
        ({"streams": 0}, "--streams 0"),
        ({"window": 0}, "--window 0"),
        ({"learning_rate": 0.0}, "--learning-rate 0: a number above 0"),
        ({"learning_rate": math.nan}, "--learning-rate nan"),
        ({"weight_decay": -1.0}, "--weight-decay -1"),
        ({"clip": 0.0}, "--clip 0"),
        ({"dropout": 1.0}, "--dropout 1: at least 0 and below 1"),
        ({"season": 0}, "--season 0"),
        ({"seed": -1}, "--seed -1"),
        ({"quantiles": (0.5, 0.1)}, "--quantiles 0.5,0.1: they have to rise"),
        ({"quantiles": (0.5, 0.5)}, "they have to rise"),
        ({"quantiles": (0.0, 0.5)}, "between 0 and 1"),
        ({"quantiles": ()}, "between 0 and 1"),
    ],
)
def test_nonsense_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small_config(**changes)


def test_settings_read_back() -> None:
    config = small_config(quantiles=(0.5,), description="a test")
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
