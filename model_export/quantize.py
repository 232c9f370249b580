"""A model file's graph with the weights of its recurrent layers as int8.

Every LSTM, GRU and tanh RNN is replaced by its function of `model_export.quantized_cells`. What stays float32: the
states, the gates' activations, everything between and after the layers, and the projection of what is no hidden state,
such as the first layer's sensor readings, which know no bounds.
"""

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from model_export.errors import StreamingError
from model_export.quantized_cells import DOMAIN, KERNELS, functions

INT8 = "int8"

# Processors without VNNI add two products of a uint8 and an int8 in 16 bits, which saturate: 2 · 255 · 64 fits, 2 · 255
# · 127 would not, and the file would give other answers there.
LARGEST_WEIGHT = 64

# Operators whose results hold no other numbers than their first input.
_MOVES = frozenset({"Identity", "Squeeze", "Transpose", "Unsqueeze"})

Weights = NDArray[np.float32]


def to_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model`, as `export_streaming` writes them, whose recurrent layers have int8 weights.

    Raises `StreamingError` for a model without float32 layers, or one with ReLU RNNs.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    # Tensors that hold hidden states, and so nothing beyond [-1, 1].
    bounded: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    found = 0
    for node in graph.node:
        if node.op_type in ("LSTM", "GRU") and not node.domain:
            layer = _Layer(node, {name: numpy_helper.to_array(weights[name])[0] for name in node.input[1:4]}, found)
            nodes += layer.nodes(bounded=node.input[0] in bounded)
            graph.initializer.extend(layer.tensors)
            bounded.add(node.output[0])
            found += 1
        else:
            nodes.append(node)
            if node.op_type in _MOVES and node.input[0] in bounded:
                bounded.add(node.output[0])
    if not found:
        raise StreamingError("the model holds no LSTM, GRU or RNN layer in float32: there is nothing to quantise")
    _replace(graph, nodes)
    used = {node.op_type for node in nodes if node.domain == DOMAIN}
    result.functions.extend(function for function in functions() if function.name in used)
    result.opset_import.extend([helper.make_opsetid(DOMAIN, 1), helper.make_opsetid(KERNELS, 1)])
    return result


class _Layer:
    """One recurrent node's replacement. `tensors` are its weights, under names that begin with ``int8_<index>``."""

    def __init__(self, node: onnx.NodeProto, packed: dict[str, Weights], index: int) -> None:
        self.kind = _kind(node)
        self.tensors: list[onnx.TensorProto] = []
        self._node = node
        self._prefix = f"int8_{index}"
        weight, recurrence, bias = (packed[name] for name in node.input[1:4])
        input_bias, recurrence_bias = np.split(bias, 2)
        # An RNN is exported as a GRU whose other two gates are held, see `model_export.cells`.
        own = slice(-recurrence.shape[1], None) if self.kind == "RNN" else slice(None)
        self._weight, self._recurrence = weight[own].T, recurrence[own].T
        self._input_bias, self._recurrence_bias = input_bias[own], recurrence_bias[own]

    def nodes(self, bounded: bool) -> Iterator[onnx.NodeProto]:
        """The nodes; `bounded` says that the layer's input is a hidden state."""
        x, rows = self._node.input[0], f"{self._prefix}_rows"
        if bounded:
            projection = [*self._quantized("weight", self._weight), self._tensor("input_bias", self._input_bias)]
            yield helper.make_node("Project", [x, *projection], [rows], domain=DOMAIN)
        else:
            projected = f"{rows}_unbiased"
            yield helper.make_node("MatMul", [x, self._tensor("weight", self._weight)], [projected])
            yield helper.make_node("Add", [projected, self._tensor("input_bias", self._input_bias)], [rows])
        recurrence = self._quantized("recurrence", self._recurrence)
        bias = self._tensor("recurrence_bias", self._recurrence_bias)
        yield helper.make_node(
            self.kind, [rows, *recurrence, bias, *self._node.input[5:]], self._node.output, domain=DOMAIN
        )

    def _quantized(self, name: str, weights: Weights) -> list[str]:
        """Add `weights` (inputs, gates · hidden) as int8 with a scale for each column; return the two names."""
        largest = np.abs(weights).max(axis=0)
        scale = np.where(largest > 0, largest, 1.0).astype(np.float32) / np.float32(LARGEST_WEIGHT)
        return [
            self._tensor(name, np.rint(weights / scale).astype(np.int8)),
            self._tensor(f"{name}_scale", scale),
        ]

    def _tensor(self, name: str, values: NDArray[np.generic]) -> str:
        full = f"{self._prefix}_{name}"
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(values), full))
        return full


def _kind(node: onnx.NodeProto) -> str:
    """LSTM, GRU or RNN. Raises `StreamingError` for a hidden state without bounds."""
    if node.op_type == "LSTM":
        return "LSTM"
    (activations,) = (helper.get_attribute_value(each) for each in node.attribute if each.name == "activations")
    if activations[1] == b"Relu":
        raise StreamingError(
            'an nn.RNN with nonlinearity="relu" cannot be quantised: its hidden state knows no bounds, and no scale '
            "fits it; LSTM, GRU and tanh RNN can be"
        )
    return "GRU" if activations[0] == b"Sigmoid" else "RNN"


def _replace(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Give `graph` these nodes, and take out the weights that none of them reads."""
    read = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
