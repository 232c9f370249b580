"""The operators of `model_export.cells` as ONNX nodes, for the ``custom_translation_table`` of `torch.onnx.export`."""

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset20 as op

from model_export import cells  # noqa: F401  registers the operators that the table's keys name

OPSET = 20


def _lstm(x: Any, weight: Any, recurrence: Any, bias: Any, hidden: Any, cell: Any) -> tuple[Any, Any, Any]:
    size = int(recurrence.shape[2])
    y, hidden, cell = op.LSTM(x, weight, recurrence, bias, None, hidden, cell, hidden_size=size)
    return _without_directions(y), hidden, cell


def _gru(x: Any, weight: Any, recurrence: Any, bias: Any, hidden: Any, gate: str, candidate: str) -> tuple[Any, Any]:
    y, hidden = op.GRU(
        x,
        weight,
        recurrence,
        bias,
        None,
        hidden,
        hidden_size=int(recurrence.shape[2]),
        activations=[gate, candidate],
        linear_before_reset=1,
    )
    return _without_directions(y), hidden


def _without_directions(y: Any) -> Any:
    """ONNX's (time, directions, batch, hidden) with its one direction taken out."""
    direction: Any = op.Constant(value_ints=[1])
    return op.Squeeze(y, direction)


TABLE: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.conveyor.lstm.default: _lstm,
    torch.ops.conveyor.gru.default: _gru,
}
