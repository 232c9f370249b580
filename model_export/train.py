"""Training, to be read from top to bottom: rows in, a run folder out.

The network is trained as it is served. The train rows are cut into parallel, contiguous streams; each stream is walked
through in windows, and the state at the end of a window, detached, is the state at the start of the next (truncated
back-propagation through time, Williams and Peng 1990). Only at the start of an epoch is it zero.
"""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

from model_export import plots
from model_export.baselines import default_season
from model_export.config import TrainConfig
from model_export.errors import InputError
from model_export.network import Forecaster, States, pinball_loss
from model_export.run import DataSummary, Run, prepare
from model_export.scoring import compare, origins, summary
from model_export.series import Series
from model_export.split import Split, chronological_split, fit_scaling

# Rows run through the network before those it is judged on, so that its state is what it would be in service.
WARM_UP = 512
FINAL_LEARNING_RATE = 0.05


def train(config: TrainConfig, series: Series, out: Path, source: str, console: Console | None = None) -> Run:
    """Train a forecaster on `series` and leave a run folder at `out`; `source` says where the rows come from.

    The same settings, rows and machine give the same weights, bit for bit; for that, PyTorch is set to one thread and
    to deterministic algorithms. Raises `InputError` for rows that are too few or a column that cannot be used.
    """
    started = time.perf_counter()
    torch.manual_seed(config.seed)
    torch.use_deterministic_algorithms(True)
    # Steps this small gain nothing from a second thread, and sums are split the same way whatever the cores.
    torch.set_num_threads(1)

    split = chronological_split(len(series), config.split)
    season = config.season or default_season(series.period_s)
    _require_rows(config, split, season)
    scaling = fit_scaling(series.matrix(config.columns)[: split.train], config.columns)
    network = Forecaster(config, scaling)
    prepare(out)

    features = torch.from_numpy(series.matrix(config.features))
    targets = torch.from_numpy(series.matrix(config.targets))
    best, history = fit(network, features, targets, split, config, console)
    metrics: dict[str, Any] = {
        "best_epoch": best.epoch,
        "epochs": len(history),
        "validation_pinball": best.loss,
        "seconds": round(time.perf_counter() - started, 1),
    }
    for part in ("validation", "test"):
        metrics[part] = {
            name: summary(compare(quantiles, config.quantiles, targets[:, i].numpy(), split.rows(part), season))
            for i, (name, quantiles) in enumerate(forecast(network, features, split.rows(part)).items())
        }
    data = DataSummary.of(series, split, scaling, source, season)
    run = Run(config, data, network.eval(), {**metrics, "history": history})
    run.save(out)
    plots.loss(history, best.epoch, out / "loss.png")
    _plot_forecasts(run, series, features, out)
    return run


def fit(
    network: Forecaster, features: Tensor, targets: Tensor, split: Split, config: TrainConfig, console: Console | None
) -> tuple["EarlyStopping", list[dict[str, float]]]:
    """Train `network` on (rows, columns) in raw units, and leave the best epoch's weights in it."""
    x = network.scale_features(features)
    # Row t of y holds the targets at t+1 … t+horizon: (rows − horizon, targets, horizon).
    y = network.scale_targets(targets).unfold(0, config.horizon, 1)[1:]
    # The last train origins are left out, whose targets are validation rows.
    train_x, train_y = x[: split.train - config.horizon], y[: split.train - config.horizon]

    levels = torch.tensor(config.quantiles)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: _cosine(epoch / config.epochs))
    best = EarlyStopping(config.patience)
    history: list[dict[str, float]] = []
    with _progress(console) as progress:
        bar = progress.add_task("training", total=config.epochs, losses="")
        for epoch in range(1, config.epochs + 1):
            train_loss = train_epoch(network, optimizer, train_x, train_y, levels, config)
            validation_loss = _validation_loss(network, x, y, split.rows("validation"), levels)
            schedule.step()
            history.append({"epoch": epoch, "train": train_loss, "validation": validation_loss})
            best.observe(epoch, validation_loss, network)
            losses = f"pinball: train {train_loss:.4f}  validation {validation_loss:.4f}  best {best.loss:.4f}"
            progress.update(bar, advance=1, losses=losses)
            if best.should_stop:
                break
    network.load_state_dict(best.weights)
    return best, history


def train_epoch(
    network: Forecaster, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, levels: Tensor, config: TrainConfig
) -> float:
    """One pass over the train rows with the state carried from window to window. Returns the mean pinball loss."""
    network.train()
    states: States | None = None
    total, windows = 0.0, 0
    for window_x, window_y in stream_windows(x, y, config.streams, config.window):
        quantiles, states = network.scaled(window_x, states)
        loss = pinball_loss(torch.stack(quantiles, dim=2), window_y, levels)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
        optimizer.step()
        states = tuple(state.detach() for state in states) if isinstance(states, tuple) else states.detach()
        total, windows = total + loss.item(), windows + 1
    return total / windows


def stream_windows(x: Tensor, y: Tensor, streams: int, window: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Consecutive windows (streams, window, …) of the rows of `x` and `y`, cut into contiguous streams.

    The first row is drawn anew each time, so that windows do not begin at the same rows in every epoch.
    """
    first = int(torch.randint(window, ()))
    length = (len(x) - first) // streams
    rows = slice(first, first + streams * length)
    x, y = (torch.unflatten(rows_of, 0, (streams, length)) for rows_of in (x[rows], y[rows]))
    for start in range(0, length, window):
        yield x[:, start : start + window], y[:, start : start + window]


class EarlyStopping:
    """Keeps the weights of the best epoch; `should_stop` after `patience` epochs in a row that were not better."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.epoch = 0
        self.loss = math.inf
        self.weights: dict[str, Tensor] = {}
        self._latest = 0

    def observe(self, epoch: int, loss: float, network: torch.nn.Module) -> None:
        """Raises `InputError` for a loss that is no number: training has diverged."""
        if not math.isfinite(loss):
            raise InputError(f"the validation loss is {loss} in epoch {epoch}: lower --learning-rate")
        self._latest = epoch
        if loss < self.loss:
            self.epoch, self.loss = epoch, loss
            self.weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    @property
    def should_stop(self) -> bool:
        return self._latest - self.epoch >= self.patience


@torch.no_grad()
def _validation_loss(network: Forecaster, x: Tensor, y: Tensor, rows: range, levels: Tensor) -> float:
    network.eval()
    at = origins(rows, network.horizon)
    start = max(0, at.start - WARM_UP)
    quantiles, _ = network.scaled(x[None, start : at.stop], None)
    judged = torch.stack(quantiles, dim=2)[0, at.start - start :]
    return pinball_loss(judged, y[at.start : at.stop], levels).item()


@torch.no_grad()
def forecast(network: Forecaster, features: Tensor, rows: range) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Each target's quantiles (origins, horizon, levels) in raw units, for the forecasts that `rows` can judge."""
    network.eval()
    at = origins(rows, network.horizon)
    start = max(0, at.start - WARM_UP)
    scaled, _ = network.scaled(network.scale_features(features[None, start : at.stop]), None)
    return {
        name: (quantiles[0, at.start - start :] * network.target_std[i] + network.target_mean[i]).numpy()
        for i, (name, quantiles) in enumerate(zip(network.targets, scaled, strict=True))
    }


def _cosine(progress: float) -> float:
    return FINAL_LEARNING_RATE + (1 - FINAL_LEARNING_RATE) * 0.5 * (1 + math.cos(math.pi * progress))


def _require_rows(config: TrainConfig, split: Split, season: int) -> None:
    usable = split.train - config.horizon
    if usable < (config.streams + 1) * config.window:
        raise InputError(
            f"{split.train} train rows are too few for {config.streams} streams of {config.window} rows: lower "
            "--streams or --window, or take more rows"
        )
    for part in ("validation", "test"):
        if (rows := len(split.rows(part))) < config.horizon:
            raise InputError(f"{rows} {part} rows are too few for a horizon of {config.horizon}: see --split")
    if split.train <= season:
        raise InputError(f"{split.train} train rows are too few for a season of {season} rows: see --season")


def _progress(console: Console | None) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TextColumn("{task.fields[losses]}"), console=console or Console(stderr=True))


def _plot_forecasts(run: Run, series: Series, features: Tensor, out: Path) -> None:
    rows = run.data.split.rows("test")
    for name, quantiles in forecast(run.network, features, rows).items():
        title = f"{name}: forecasts of the test rows, {run.config.horizon} steps ahead"
        unit = run.data.units[name]
        at = origins(rows, run.config.horizon)
        plots.forecasts(
            quantiles,
            run.config.quantiles,
            series.columns[name],
            series.times,
            at,
            title,
            unit,
            out / f"forecast_{name}.png",
        )
