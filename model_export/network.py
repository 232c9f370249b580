"""The forecaster: a recurrent network from raw sensor units to quantiles in raw units, scaling included."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from model_export.config import TrainConfig
from model_export.split import Scaling

States = Tensor | tuple[Tensor, ...]

_LAYERS: dict[str, Callable[..., nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class Forecaster(nn.Module):
    """Quantiles of each target over the next `horizon` timesteps, from each timestep and the state before it.

    Buffers hold the scaling, so that the exported graph takes and gives raw units. The state is PyTorch's own:
    ``(hidden, cell)`` for an LSTM, ``hidden`` otherwise, each (layers, batch, hidden units).
    """

    feature_mean: Tensor
    feature_std: Tensor
    target_mean: Tensor
    target_std: Tensor

    recurrent: nn.RNNBase

    def __init__(self, config: TrainConfig, scaling: dict[str, Scaling]) -> None:
        super().__init__()
        self.targets = config.targets
        self.horizon = config.horizon
        self.present = [
            config.features.index(name) if config.residual and name in config.features else None
            for name in config.targets
        ]
        for kind, names in (("feature", config.features), ("target", config.targets)):
            self.register_buffer(f"{kind}_mean", torch.tensor([scaling[name].mean for name in names]))
            self.register_buffer(f"{kind}_std", torch.tensor([scaling[name].std for name in names]))
        self.recurrent = _LAYERS[config.cell](
            len(config.features),
            config.hidden,
            config.layers,
            batch_first=True,
            dropout=config.dropout if config.layers > 1 else 0.0,
        )
        self.head = nn.Linear(config.hidden, len(config.targets) * config.horizon * len(config.quantiles))
        self._initialise()

    def forward(self, x: Tensor, states: States) -> tuple[dict[str, Tensor], States]:
        """`x` (batch, time, features) in raw units → each target's (batch, time, horizon, quantiles) in raw units."""
        scaled, states = self.scaled(self.scale_features(x), states)
        return {
            name: quantiles * self.target_std[index] + self.target_mean[index]
            for index, (name, quantiles) in enumerate(zip(self.targets, scaled, strict=True))
        }, states

    def scale_features(self, x: Tensor) -> Tensor:
        return (x - self.feature_mean) / self.feature_std

    def scale_targets(self, y: Tensor) -> Tensor:
        return (y - self.target_mean) / self.target_std

    def scaled(self, x: Tensor, states: States | None) -> tuple[list[Tensor], States]:
        """The same in scaled units, as the loss wants it; one tensor per target. No states are zero states."""
        y, states = self.recurrent(x, states)
        raw = self.head(y).unflatten(-1, (len(self.targets), self.horizon, -1))
        found = []
        for index, column in enumerate(self.present):
            quantiles = rising(raw[:, :, index])
            if column is not None:
                quantiles = quantiles + x[:, :, column, None, None]
            found.append(quantiles)
        return found, states

    def _initialise(self) -> None:
        """Forget gates start open (bias 1, Jozefowicz et al. 2015), so that early gradients reach far back."""
        if not isinstance(self.recurrent, nn.LSTM):
            return
        size = self.recurrent.hidden_size
        with torch.no_grad():
            for layer in range(self.recurrent.num_layers):
                getattr(self.recurrent, f"bias_ih_l{layer}")[size : 2 * size] = 1.0
                getattr(self.recurrent, f"bias_hh_l{layer}")[size : 2 * size] = 0.0


def rising(raw: Tensor) -> Tensor:
    """Numbers that do not fall along the last axis: the first one, and increments that are positive by squareplus.

    Squareplus, (z + √(z² + 4)) / 2 (Barron 2021), is a softplus of operations that IEEE 754 defines to the last bit.
    ONNX Runtime rounds them so: its bits do not depend on where in a tensor a number stands, as those of its Softplus
    do. PyTorch's square root may be a unit less, and the sum then less than zero far below zero: hence the ReLU.
    """
    first, rest = raw[..., :1], raw[..., 1:]
    return torch.cat([first, torch.relu((rest + torch.sqrt(rest * rest + 4.0)) * 0.5)], dim=-1).cumsum(-1)


def pinball_loss(quantiles: Tensor, truth: Tensor, levels: Tensor) -> Tensor:
    """Mean pinball loss (Koenker and Bassett 1978) of `quantiles` (…, levels) for `truth` (…)."""
    error = truth.unsqueeze(-1) - quantiles
    return torch.maximum(levels * error, (levels - 1) * error).mean()
