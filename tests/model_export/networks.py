"""Networks that a person might bring, written the way people write them."""

from typing import Any

import torch
from torch import Tensor, nn


class Head(nn.Module):
    """One recurrent layer stack and a linear head; the output is a tensor."""

    def __init__(self, layer: nn.RNNBase, outputs: int = 3) -> None:
        super().__init__()
        self.rnn = layer
        self.head = nn.Linear(layer.hidden_size, outputs)

    def forward(self, x: Tensor, states: Any) -> tuple[Tensor, Any]:
        y, states = self.rnn(x, states)
        return self.head(y), states


class TwoStacks(nn.Module):
    """An LSTM that feeds a GRU; the outputs are a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.LSTM(3, 6, num_layers=2, batch_first=True, dropout=0.2)
        self.decoder = nn.GRU(6, 5, batch_first=True)
        self.level = nn.Linear(5, 2)

    def forward(self, x: Tensor, states: Any) -> tuple[tuple[Tensor, Tensor], Any]:
        encoded, first = self.encoder(x, states[0])
        decoded, second = self.decoder(encoded, states[1])
        return (self.level(decoded), torch.tanh(decoded)), (first, second)


class NamedStates(nn.Module):
    """Outputs and states are dicts, and the state besides the layer's is an exponential average of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 7)
        self.mean = nn.Linear(7, 1)
        self.spread = nn.Linear(7, 4)

    def initial_states(self, batch: int) -> dict[str, Tensor]:
        return {"memory": torch.zeros(1, batch, 7), "level": torch.zeros(batch, 3)}

    def forward(self, x: Tensor, states: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        y, memory = self.rnn(x, states["memory"])
        level = 0.5 * states["level"] + 0.25
        return {"mean": self.mean(y), "spread": torch.exp(self.spread(y))}, {"memory": memory, "level": level}
