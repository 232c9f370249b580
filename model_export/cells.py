"""Recurrent layers in the form that ONNX Runtime runs: one custom operator per layer, time left symbolic.

`torch.export` unrolls or specialises a plain ``nn.LSTM`` to the example's number of timesteps. Here each layer becomes
a call of an opaque operator whose fake kernel passes the time axis through, and `model_export.translate` maps that
operator to ONNX's own LSTM or GRU. The eager kernels below are the operators' definition in PyTorch, after the ONNX
operator specification (opset 14, forward direction, ``linear_before_reset=1`` for the GRU).

Shapes: input (time, batch, features), states (1, batch, hidden), float32 throughout.

An ``nn.RNN`` runs as a GRU whose gates are held: ONNX Runtime 1.32's RNN kernel picks other matrix kernels for one row
than for many, so a chunk would not give bit for bit what its single steps give. Its GRU (like its LSTM) packs the
weights beforehand and does. With the update gate at exactly 0 and the reset gate at exactly 1 the GRU's equations are
the RNN's; HardSigmoid reaches both values exactly, Sigmoid does not.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from model_export.errors import StreamingError

# Far enough outside HardSigmoid's ramp, which ends at ±2.5, for any finite pre-activation of a weightless gate.
HELD = 1000.0

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Sigmoid": torch.sigmoid,
    "HardSigmoid": lambda x: torch.clamp(0.2 * x + 0.5, 0.0, 1.0),
    "Tanh": torch.tanh,
    "Relu": torch.relu,
}


@torch.library.custom_op("conveyor::lstm", mutates_args=())
def lstm(
    x: Tensor, weight: Tensor, recurrence: Tensor, bias: Tensor, hidden: Tensor, cell: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One LSTM layer, gates in ONNX's order i, o, f, c.

    `x` (time, batch, features); `weight` (1, 4·hidden, features); `recurrence` (1, 4·hidden, hidden); `bias`
    (1, 8·hidden), that of the input before that of the recurrence; `hidden` and `cell` (1, batch, hidden).
    Returns every timestep's hidden state (time, batch, hidden) and the last hidden and cell states.
    """
    w, r = weight[0].T, recurrence[0].T
    b = bias[0].view(2, -1).sum(0)
    h, c = hidden[0], cell[0]
    rows = []
    for row in x @ w + b:
        i, o, f, g = (row + h @ r).chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        rows.append(h)
    return torch.stack(rows), h.unsqueeze(0), c.unsqueeze(0)


@lstm.register_fake
def _(
    x: Tensor, weight: Tensor, recurrence: Tensor, bias: Tensor, hidden: Tensor, cell: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    y = x.new_empty(x.shape[0], x.shape[1], hidden.shape[2])
    return y, torch.empty_like(hidden), torch.empty_like(cell)


@torch.library.custom_op("conveyor::gru", mutates_args=())
def gru(
    x: Tensor, weight: Tensor, recurrence: Tensor, bias: Tensor, hidden: Tensor, gate: str, candidate: str
) -> tuple[Tensor, Tensor]:
    """One GRU layer, gates in ONNX's order z, r, h, the reset gate applied after the recurrence as PyTorch does.

    `x` (time, batch, features); `weight` (1, 3·hidden, features); `recurrence` (1, 3·hidden, hidden); `bias`
    (1, 6·hidden), that of the input before that of the recurrence; `hidden` (1, batch, hidden); `gate` and
    `candidate` are the ONNX names of the activations. Returns every timestep's hidden state and the last one.
    """
    w, r = weight[0].T, recurrence[0].T
    input_bias, recurrence_bias = bias[0].chunk(2)
    squash, propose = _ACTIVATIONS[gate], _ACTIVATIONS[candidate]
    h = hidden[0]
    rows = []
    for row in x @ w + input_bias:
        row_z, row_r, row_h = row.chunk(3, dim=-1)
        past_z, past_r, past_h = (h @ r + recurrence_bias).chunk(3, dim=-1)
        z = squash(row_z + past_z)
        h = (1 - z) * propose(row_h + squash(row_r + past_r) * past_h) + z * h
        rows.append(h)
    return torch.stack(rows), h.unsqueeze(0)


@gru.register_fake
def _(
    x: Tensor, weight: Tensor, recurrence: Tensor, bias: Tensor, hidden: Tensor, gate: str, candidate: str
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], x.shape[1], hidden.shape[2]), torch.empty_like(hidden)


class StreamingCell(nn.Module):
    """Takes the place of one ``nn.LSTM``, ``nn.GRU`` or ``nn.RNN``: same arguments, same results, exportable.

    Raises `StreamingError` when the layer is bidirectional, projects its hidden state, or is called without states.
    """

    def __init__(self, layer: nn.RNNBase, name: str) -> None:
        super().__init__()
        _require_streamable(layer, name)
        self.name = name
        self.batch_first = layer.batch_first
        self.layers = layer.num_layers
        self.is_lstm = isinstance(layer, nn.LSTM)
        self.gate, self.candidate = _activations(layer)
        for k in range(self.layers):
            for part, tensor in zip(("weight", "recurrence", "bias"), _pack(layer, k), strict=True):
                self.register_buffer(f"{part}_{k}", tensor.detach().unsqueeze(0).clone())

    def forward(
        self, x: Tensor, states: Tensor | tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
        if states is None:
            raise StreamingError(
                f"{self.name} is called without states: they would start at zero at every timestep; "
                "pass the states that forward(x, states) was given"
            )
        y = x.transpose(0, 1) if self.batch_first else x
        per_layer = [state.chunk(self.layers) for state in (states if isinstance(states, tuple) else (states,))]
        news = []
        for k in range(self.layers):
            packed = [self.get_buffer(f"{part}_{k}") for part in ("weight", "recurrence", "bias")]
            carried = [state[k] for state in per_layer]
            y, *new = (
                lstm(y, *packed, *carried) if self.is_lstm else gru(y, *packed, *carried, self.gate, self.candidate)
            )
            news.append(new)
        stacked = tuple(torch.cat(state) for state in zip(*news, strict=True))
        return (y.transpose(0, 1) if self.batch_first else y), (stacked if self.is_lstm else stacked[0])


def streaming_copy(module: nn.Module) -> nn.Module:
    """A copy of `module` in eval mode on the CPU, each recurrent layer in it swapped for a `StreamingCell`."""
    replica = copy.deepcopy(module).cpu()
    swapped = {layer: StreamingCell(layer, name or "the module") for name, layer in recurrent_layers(replica).items()}
    if isinstance(replica, nn.RNNBase):
        return swapped[replica].eval()
    # With duplicates, so that a layer which is registered under two names is swapped under both, and stays one.
    for path, child in list(replica.named_modules(remove_duplicate=False)):
        if isinstance(child, nn.RNNBase):
            parent, _, name = path.rpartition(".")
            setattr(replica.get_submodule(parent), name, swapped[child])
    return replica.eval()


def recurrent_layers(module: nn.Module) -> dict[str, nn.RNNBase]:
    """The recurrent layers of `module` by qualified name, in the order of their registration.

    Raises `StreamingError` when there are none, or when the module steps through time itself with an ``nn.LSTMCell``,
    ``nn.GRUCell`` or ``nn.RNNCell``: such a loop is unrolled at export to a fixed number of timesteps.
    """
    for name, child in module.named_modules():
        if isinstance(child, nn.RNNCellBase):
            raise StreamingError(
                f"{name or 'the module'} is an nn.{type(child).__name__}: a loop over timesteps is unrolled at export; "
                f"use nn.{type(child).__name__.removesuffix('Cell')}, whose weights have the same layout"
            )
    layers = {name: child for name, child in module.named_modules() if isinstance(child, nn.RNNBase)}
    if not layers:
        raise StreamingError("the module holds no nn.LSTM, nn.GRU or nn.RNN: it has no state to carry")
    return layers


def _require_streamable(layer: nn.RNNBase, name: str) -> None:
    if layer.bidirectional:
        raise StreamingError(
            f"{name} is bidirectional: its backward pass starts at the last timestep, which a stream does not have yet"
        )
    if layer.proj_size:
        raise StreamingError(
            f"{name} has proj_size={layer.proj_size}: ONNX's LSTM has no projection; use proj_size=0 and a Linear"
        )
    if any(parameter.dtype != torch.float32 for parameter in layer.parameters()):
        raise StreamingError(f"{name} is not float32, which is what is served; call module.float() first")


def _activations(layer: nn.RNNBase) -> tuple[str, str]:
    if isinstance(layer, nn.RNN):
        return "HardSigmoid", {"tanh": "Tanh", "relu": "Relu"}[layer.nonlinearity]
    return "Sigmoid", "Tanh"


def _pack(layer: nn.RNNBase, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Layer `k`'s weight, recurrence and bias in ONNX's layout: gates reordered, absent biases zero."""
    weight, recurrence = getattr(layer, f"weight_ih_l{k}"), getattr(layer, f"weight_hh_l{k}")
    biases = [
        getattr(layer, f"bias_{part}_l{k}") if layer.bias else weight.new_zeros(len(weight)) for part in ("ih", "hh")
    ]
    if isinstance(layer, nn.RNN):
        gates = weight.new_zeros(2 * layer.hidden_size)
        held = torch.cat([gates.new_full((layer.hidden_size,), -HELD), gates.new_full((layer.hidden_size,), HELD)])
        weight, recurrence = (torch.cat([gates.unsqueeze(1).expand(-1, m.shape[1]), m]) for m in (weight, recurrence))
        return weight, recurrence, torch.cat([held, biases[0], gates, biases[1]])
    # PyTorch's gates are i, f, g, o (LSTM) and r, z, n (GRU); ONNX's are i, o, f, c and z, r, h.
    order = (0, 3, 1, 2) if isinstance(layer, nn.LSTM) else (1, 0, 2)

    def reorder(m: Tensor) -> Tensor:
        gates = m.chunk(len(order))
        return torch.cat([gates[index] for index in order])

    return reorder(weight), reorder(recurrence), torch.cat([reorder(bias) for bias in biases])
