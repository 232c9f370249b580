"""`OnnxModel`: runs what its specification says, and refuses a file that says something else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from service.adapters.onnx_model import OnnxModel, UnusableModel
from service.core.errors import ModelFailed
from service.core.spec import Axis, Output, State
from tests.adapters.graphs import SPEC, accumulator, save, tensor, with_spec

HOTSPOT = Path(__file__).parents[2] / "models" / "hotspot" / "1" / "model.onnx"


@pytest.mark.parametrize("batch_axis", [0, 1])
def test_states_go_round_whatever_axis_the_batch_is_on(tmp_path: Path, batch_axis: int) -> None:
    model = OnnxModel.load(save(accumulator(batch_axis), tmp_path), "accumulator", "1")
    x = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    state = np.array([[0, 0], [100, 200], [1, 2]], np.float32)
    outputs, next_state = model.run(x, state)
    np.testing.assert_array_equal(outputs, state[:, None] + x.cumsum(axis=1))
    np.testing.assert_array_equal(next_state, outputs[:, -1])
    assert outputs.flags.c_contiguous
    assert next_state.flags.c_contiguous


def test_several_states_and_outputs_lie_end_to_end(tmp_path: Path) -> None:
    model = accumulator()
    doubled = [
        helper.make_node("Add", ["y", "y"], ["twice"]),
        helper.make_node("Add", ["t", "one_float"], ["next_t"]),
    ]
    model.graph.node.extend(doubled)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(1, np.float32), "one_float"))
    model.graph.input.append(tensor("t", ["batch", 1, 3]))
    model.graph.output.extend([tensor("twice", ["batch", "time", 2]), tensor("next_t", ["batch", 1, 3])])
    spec = replace(
        SPEC,
        outputs=(*SPEC.outputs, Output("double", "twice", axes=(Axis("sum", ("load", "ambient")),))),
        states=(State("count", "t", "next_t", (1, 3), 0), *SPEC.states),
    )
    loaded = OnnxModel.load(save(with_spec(model, spec), tmp_path), "m", "1")
    outputs, state = loaded.run(np.ones((2, 1, 2), np.float32), np.full((2, 5), 7, np.float32))
    np.testing.assert_array_equal(outputs, np.broadcast_to(np.float32([8, 8, 16, 16]), (2, 1, 4)))
    np.testing.assert_array_equal(state, np.float32([[8, 8, 8, 8, 8]] * 2))


def test_a_rows_answer_does_not_depend_on_its_neighbours() -> None:
    model = OnnxModel.load(HOTSPOT, "hotspot", "1")
    rng = np.random.default_rng(1)
    x = (rng.standard_normal((64, 5, 8)) * 20 + 40).astype(np.float32)
    state = np.tanh(rng.standard_normal((64, 256))).astype(np.float32)
    together = model.run(x, state)
    for row in range(64):
        alone = model.run(x[row : row + 1], state[row : row + 1])
        assert all(a.tobytes() == b[row].tobytes() for a, b in zip(alone, together, strict=True))


def test_it_knows_how_long_a_run_takes_once_it_is_warm() -> None:
    model = OnnxModel.load(HOTSPOT, "hotspot", "1")
    assert model.seconds(1, 1) == 0
    model.warm_up(16)
    assert 0 < model.seconds(16, 1) < model.seconds(16, 1000)
    assert model.seconds(99, 1) == model.seconds(16, 1), "beyond what was measured, the largest that was"


def test_a_run_that_fails_says_so(tmp_path: Path) -> None:
    model = OnnxModel.load(save(accumulator(), tmp_path), "accumulator", "1")
    with pytest.raises(ModelFailed, match="accumulator version 1"):
        model.run(np.zeros((2, 1, 3), np.float32), np.zeros((2, 2), np.float32))


def bytes_of_nothing(path: Path) -> None:
    path.write_bytes(b"not a model")


def edited(edit: Callable[[onnx.ModelProto], object]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        model = accumulator()
        edit(model)
        path.write_bytes(model.SerializeToString())

    return spoil


def set_dim(value_info: onnx.ValueInfoProto, axis: int, length: int) -> None:
    value_info.type.tensor_type.shape.dim[axis].dim_value = length


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (bytes_of_nothing, "protobuf parsing failed"),
        (edited(lambda m: m.metadata_props.pop()), "no conveyor.spec"),
        (edited(lambda m: with_spec(m, "{")), "conveyor.spec: not JSON"),
        (edited(lambda m: with_spec(m, '{"format": 9}')), "format: 9 is not 1"),
        (edited(lambda m: with_spec(m, replace(SPEC, input="nope"))), "input 'nope', which the graph does not have"),
        (
            edited(lambda m: with_spec(m, replace(SPEC, states=(replace(SPEC.states[0], output="nope"),)))),
            "output 'nope', which the graph does not have",
        ),
        (
            edited(lambda m: with_spec(m, replace(SPEC, states=(replace(SPEC.states[0], shape=(3,)),)))),
            r"input 's' is declared as \['batch', 2\]; \['dynamic', 3\] is needed",
        ),
        (edited(lambda m: set_dim(m.graph.input[0], 0, 1)), r"'x' is declared as \[1, 'time', 2\]"),
        (edited(lambda m: set_dim(m.graph.input[0], 1, 5)), r"'x' is declared as \['batch', 5, 2\]"),
        (edited(lambda m: m.graph.input.append(tensor("z", [1]))), "does not name: z"),
        (edited(lambda m: setattr(m.opset_import[0], "version", 99)), "[Oo]pset"),
        (edited(lambda m: m.graph.node.pop()), "next_s"),
    ],
)
def test_a_file_that_cannot_be_served_says_why(tmp_path: Path, spoil: Callable[[Path], None], complaint: str) -> None:
    path = save(accumulator(), tmp_path)
    spoil(path)
    with pytest.raises(UnusableModel, match=complaint):
        OnnxModel.load(path, "accumulator", "1")


def test_a_type_other_than_float32_is_named(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["s"], ["next_s"])],
        "doubles",
        [tensor("x", ["batch", "time", 2], TensorProto.DOUBLE), tensor("s", ["batch", 2])],
        [tensor("y", ["batch", "time", 2], TensorProto.DOUBLE), tensor("next_s", ["batch", 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    with pytest.raises(UnusableModel, match=r"'x' is tensor\(double\); float32 is served"):
        OnnxModel.load(save(with_spec(model, SPEC), tmp_path), "doubles", "1")


def test_a_graph_that_lies_about_its_shapes_is_found_out_at_warm_up(tmp_path: Path) -> None:
    model = accumulator()
    model.graph.node[4].output[0] = "inner"
    model.graph.node[5].input[0] = "inner"
    model.graph.node.insert(5, helper.make_node("Compress", ["inner", "keep"], ["y"], axis=2))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([True, False]), "keep"))
    loaded = OnnxModel.load(save(model, tmp_path), "liar", "1")
    with pytest.raises(UnusableModel, match=r"'y' came with the shape \(1, 1, 1\), specified is \(1, 1, 2\)"):
        loaded.warm_up(2)
