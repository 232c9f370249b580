"""Small ONNX files made by hand: an accumulator that adds each timestep to its state and gives the state out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from service.core.spec import SPEC_KEY, Axis, Feature, ModelSpec, Output, State

SPEC = ModelSpec(
    features=(Feature("load"), Feature("ambient")),
    outputs=(Output("total", "y", axes=(Axis("sum", ("load", "ambient")),)),),
    states=(State("sums", "s", "next_s", (2,), 0),),
)


def accumulator(batch_axis: int = 0, gain: float = 1.0) -> onnx.ModelProto:
    """y[t] = s + gain * (x[0] + … + x[t]), the state being the last y: (batch, 2), or (2, batch) for batch_axis 1."""
    state_dims: list[Any] = ["batch", 2] if batch_axis == 0 else [2, "batch"]
    permute = [0, 1] if batch_axis == 0 else [1, 0]
    nodes = [
        helper.make_node("Transpose", ["s"], ["rows"], perm=permute),
        helper.make_node("Unsqueeze", ["rows", "one"], ["before"]),
        helper.make_node("Mul", ["x", "gain"], ["amplified"]),
        helper.make_node("CumSum", ["amplified", "one_scalar"], ["sums"]),
        helper.make_node("Add", ["sums", "before"], ["y"]),
        helper.make_node("Slice", ["y", "minus_one", "large", "one"], ["last"]),
        helper.make_node("Squeeze", ["last", "one"], ["next_rows"]),
        helper.make_node("Transpose", ["next_rows"], ["next_s"], perm=permute),
    ]
    constants = {"one": [1], "minus_one": [-1], "large": [2**31 - 1]}
    initializers = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in constants.items()]
    initializers.append(numpy_helper.from_array(np.array(1, np.int64), "one_scalar"))
    initializers.append(numpy_helper.from_array(np.array(gain, np.float32), "gain"))
    graph = helper.make_graph(
        nodes,
        "accumulator",
        [tensor("x", ["batch", "time", 2]), tensor("s", state_dims)],
        [tensor("y", ["batch", "time", 2]), tensor("next_s", state_dims)],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    state = replace(SPEC.states[0], batch_axis=batch_axis)
    return with_spec(model, replace(SPEC, states=(state,)))


def tensor(name: str, dims: list[Any], dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, dims)


def with_spec(model: onnx.ModelProto, spec: ModelSpec | str) -> onnx.ModelProto:
    del model.metadata_props[:]
    helper.set_model_props(model, {SPEC_KEY: spec if isinstance(spec, str) else spec.to_json()})
    return model


def save(model: onnx.ModelProto | bytes, folder: Path, name: str = "accumulator", version: str = "1") -> Path:
    """Put a model into a repository; return its file."""
    path = folder / name / version / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path
