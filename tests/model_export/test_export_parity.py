"""What ONNX Runtime gives, a step at a time, is what PyTorch's own layers give over the whole sequence."""

import copy
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import Head, NamedStates, TwoStacks
from torch import nn

from model_export import describe, export_streaming
from model_export.cells import StreamingCell, streaming_copy
from model_export.errors import InputError, VerificationError
from model_export.runtime import StreamingModel

CELLS = {
    "lstm": (nn.LSTM, {}),
    "gru": (nn.GRU, {}),
    "rnn-tanh": (nn.RNN, {"nonlinearity": "tanh"}),
    "rnn-relu": (nn.RNN, {"nonlinearity": "relu"}),
}
FEATURES = ["a", "b", "c"]
COMBINATIONS = list(itertools.product(CELLS, (1, 3), (True, False), (True, False)))


def layer(kind: str, layers: int, batch_first: bool, bias: bool) -> nn.RNNBase:
    torch.manual_seed(len(kind) + layers)
    cell, options = CELLS[kind]
    return cell(3, 8, layers, batch_first=batch_first, bias=bias, dropout=0.5 if layers > 1 else 0.0, **options)


def streamed(model: StreamingModel, x: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """`x` (batch, time, features) fed a step at a time."""
    states = model.zero_states(len(x))
    steps = []
    for time in range(x.shape[1]):
        outputs, states = model.run(x[:, [time]], states)
        steps.append(outputs)
    return [np.concatenate(parts, axis=1) for parts in zip(*steps, strict=True)], states


@pytest.mark.parametrize(("kind", "layers", "batch_first", "bias"), COMBINATIONS)
def test_every_cell_in_every_layout(kind: str, layers: int, batch_first: bool, bias: bool, tmp_path: Path) -> None:
    module = Head(layer(kind, layers, batch_first, bias))
    path = tmp_path / "model.onnx"
    report = export_streaming(module, describe(module, FEATURES), path)
    assert [check.name for check in report.checks if not check.passed] == []

    x = torch.randn(5, 40, 3)
    outputs, states = streamed(StreamingModel(path), x.numpy())
    zeros = torch.zeros(layers, 5, 8)
    initial = (zeros, zeros) if kind == "lstm" else zeros
    module.eval()
    with torch.no_grad():
        expected, last = module(x if batch_first else x.transpose(0, 1), initial)
    np.testing.assert_allclose(outputs[0], expected if batch_first else expected.transpose(0, 1), atol=2e-6)
    for mine, theirs in zip(states, last if kind == "lstm" else [last], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-6)


@pytest.mark.parametrize(("kind", "layers", "batch_first", "bias"), COMBINATIONS)
def test_the_operators_definition_equals_pytorchs_layer(kind: str, layers: int, batch_first: bool, bias: bool) -> None:
    module = layer(kind, layers, batch_first, bias).eval()
    x, states = torch.randn(4, 6, 3), torch.randn(layers, 4 if batch_first else 6, 8)
    given = (states, states.flip(0) * 2) if kind == "lstm" else states
    with torch.no_grad():
        expected, _ = module(x, given)
        found, _ = streaming_copy(module)(x, given)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_a_bare_layer(tmp_path: Path) -> None:
    module = nn.LSTM(3, 8)
    spec = describe(module, FEATURES)
    export_streaming(module, spec, tmp_path / "model.onnx")
    assert [(state.name, state.shape, state.batch_axis) for state in spec.states] == [
        ("hidden", (1, 8), 1),
        ("cell", (1, 8), 1),
    ]
    x = torch.randn(2, 9, 3)
    outputs, _ = streamed(StreamingModel(tmp_path / "model.onnx"), x.numpy())
    with torch.no_grad():
        np.testing.assert_allclose(outputs[0], module(x.transpose(0, 1))[0].transpose(0, 1), atol=2e-6)


def test_a_tuple_of_outputs_and_two_stacks(tmp_path: Path) -> None:
    module = TwoStacks()
    spec = describe(module, FEATURES, outputs=["level", "code"])
    assert [(output.name, output.shape) for output in spec.outputs] == [("level", (2,)), ("code", (5,))]
    assert [state.name for state in spec.states] == ["encoder_hidden", "encoder_cell", "decoder_hidden"]
    export_streaming(module, spec, tmp_path / "model.onnx")
    x, zeros = torch.randn(3, 20, 3), torch.zeros(2, 3, 6)
    outputs, _ = streamed(StreamingModel(tmp_path / "model.onnx"), x.numpy())
    module.eval()
    with torch.no_grad():
        expected, _ = module(x, ((zeros, zeros), torch.zeros(1, 3, 5)))
    for mine, theirs in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-6)


def test_a_dict_of_outputs_and_states_with_the_batch_in_front(tmp_path: Path) -> None:
    module = NamedStates()
    spec = describe(module, FEATURES)
    assert [output.name for output in spec.outputs] == ["mean", "spread"]
    assert [(state.name, state.batch_axis) for state in spec.states] == [("memory", 1), ("level", 0)]
    # The average is taken per call, not per timestep: a chunk is not its single steps, and verification says so.
    with pytest.raises(VerificationError, match="a chunk differs"):
        export_streaming(module, spec, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_layer_with_two_names_is_swapped_under_both() -> None:
    module = Head(layer("gru", 1, True, True))
    module.alias = module.rnn
    replica = streaming_copy(module)
    assert isinstance(replica.rnn, StreamingCell)
    assert replica.alias is replica.rnn


def test_the_callers_module_is_left_as_it_was(tmp_path: Path) -> None:
    module = Head(layer("gru", 3, True, True))
    module.train()
    module.head.eval()
    before = copy.deepcopy(module.state_dict())
    export_streaming(module, describe(module, FEATURES), tmp_path / "model.onnx")
    assert isinstance(module.rnn, nn.GRU)
    assert (module.training, module.rnn.training, module.head.training) == (True, True, False)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_the_spec_in_the_file_is_the_spec_given(tmp_path: Path) -> None:
    module = Head(layer("lstm", 1, True, True))
    spec = describe(module, FEATURES, outputs=["power"], sampling_period_s=60, description="a test", training={"k": 1})
    export_streaming(module, spec, tmp_path / "model.onnx")
    assert StreamingModel(tmp_path / "model.onnx").spec == spec


def test_an_existing_version_is_not_overwritten_without_force(tmp_path: Path) -> None:
    module = Head(layer("rnn-tanh", 1, True, True))
    spec, path = describe(module, FEATURES), tmp_path / "model.onnx"
    path.write_bytes(b"precious")
    with pytest.raises(InputError, match="--force"):
        export_streaming(module, spec, path)
    assert path.read_bytes() == b"precious"
    export_streaming(module, spec, path, force=True)
    assert StreamingModel(path).spec == spec


def test_the_file_holds_no_paths_of_this_machine(tmp_path: Path) -> None:
    module = Head(layer("lstm", 1, True, True))
    export_streaming(module, describe(module, FEATURES), tmp_path / "model.onnx")
    content = (tmp_path / "model.onnx").read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in content
    assert b"stack_trace" not in content
