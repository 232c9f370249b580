"""Nested states and outputs, and a module seen with all of them laid flat.

A model file knows flat, named tensors and x as (batch, time, features); a module's ``forward(x, states)`` may nest its
states and outputs in tuples, lists and dicts, and may want (time, batch, features). This room translates.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from model_export.cells import recurrent_layers
from model_export.errors import StreamingError

Nest: TypeAlias = Any
"""A tensor, or a tuple, list or dict of nests."""


def flatten(nest: Nest, path: str = "") -> list[tuple[str, Tensor]]:
    """The tensors of `nest` in order, each with its path, e.g. ``"encoder_0"``; "" for a bare tensor."""
    if isinstance(nest, Tensor):
        return [(path, nest)]
    if isinstance(nest, Mapping):
        items: list[tuple[Any, Nest]] = list(nest.items())
    elif isinstance(nest, tuple | list):
        items = list(enumerate(nest))
    else:
        raise StreamingError(f"a {type(nest).__name__} stands where a tensor, tuple, list or dict of tensors is needed")
    return [leaf for key, item in items for leaf in flatten(item, f"{path}_{key}" if path else str(key))]


def rebuild(like: Nest, tensors: Iterator[Tensor]) -> Nest:
    """`tensors` in the structure of `like`."""
    if isinstance(like, Tensor):
        return next(tensors)
    if isinstance(like, Mapping):
        return {key: rebuild(item, tensors) for key, item in like.items()}
    return type(like)([rebuild(item, tensors) for item in like])


def initial_states(module: nn.Module, batch: int) -> Nest:
    """Zero states for `batch` sessions, in the structure that ``module.forward`` takes.

    That is whatever ``module.initial_states(batch)`` gives, where the module has such a method. Otherwise it is
    PyTorch's own: ``(hidden, cell)`` for an ``nn.LSTM``, ``hidden`` for an ``nn.GRU`` or ``nn.RNN``, each
    (layers, batch, hidden units); and a tuple of these, in the order of registration, when there are several layers.
    """
    if callable(own := getattr(module, "initial_states", None)):
        return own(batch)
    states = [_layer_states(layer, batch) for layer in recurrent_layers(module).values()]
    return states[0] if len(states) == 1 else tuple(states)


def _layer_states(layer: nn.RNNBase, batch: int) -> Nest:
    zeros = torch.zeros(layer.num_layers, batch, layer.hidden_size)
    return (zeros, zeros.clone()) if isinstance(layer, nn.LSTM) else zeros


def is_batch_first(module: nn.Module) -> bool:
    """Whether ``module.forward`` takes (batch, time, features), judged by the layout of its recurrent layers."""
    layouts = {layer.batch_first for layer in recurrent_layers(module).values()}
    if len(layouts) > 1:
        raise StreamingError("some recurrent layers are batch_first and some are not; say which x is with batch_first=")
    return layouts.pop()


class FlatModule(nn.Module):
    """`module` with flat arguments and results: ``(x, *states) -> (*outputs, *new_states)``.

    `x` and the outputs begin with (batch, time) here, whatever the module's own layout. `states` is an example of the
    nest that the module takes.
    """

    def __init__(self, module: nn.Module, states: Nest, batch_first: bool) -> None:
        super().__init__()
        self.module = module
        self.states = states
        self.batch_first = batch_first

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        outputs, news = self.named(x, *states)
        return (*(tensor for _, tensor in outputs), *news)

    def named(self, x: Tensor, *states: Tensor) -> tuple[list[tuple[str, Tensor]], list[Tensor]]:
        """Outputs with their paths, and the new states."""
        result = self.module(x if self.batch_first else x.transpose(0, 1), rebuild(self.states, iter(states)))
        if not (isinstance(result, tuple) and len(result) == 2):
            raise StreamingError("forward(x, states) has to return (outputs, new_states)")
        outputs, news = (flatten(nest) for nest in result)
        if not self.batch_first:
            outputs = [(path, tensor.transpose(0, 1)) for path, tensor in outputs]
        return outputs, [tensor for _, tensor in news]
