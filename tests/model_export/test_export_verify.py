"""Verification catches what is broken."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from networks import Head
from onnx import helper, numpy_helper
from torch import Tensor, nn

from model_export import describe, export_streaming
from model_export.errors import InputError, VerificationError
from model_export.flat import FlatModule, initial_states
from model_export.verify import Report, verify


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    module = Head(nn.LSTM(3, 8, 2, batch_first=True))
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export_streaming(module, describe(module, ["a", "b", "c"]), path)
    return module, path


def edited(path: Path, to: Path, edit: Callable[[onnx.ModelProto], None]) -> Path:
    model = onnx.load(path)
    edit(model)
    onnx.save(model, to)
    return to


def teacher(module: nn.Module) -> FlatModule:
    return FlatModule(module, initial_states(module, 1), batch_first=True).eval()


def failures(report: Report) -> dict[str, str]:
    return {check.name: check.detail for check in report.checks if not check.passed}


DYNAMIC, SIZES = "batch and time are dynamic", "every batch size runs"
SAME_BITS, PARITY = "single steps alone give the same bits", "2,000 carried steps equal PyTorch"


def test_a_sound_file_passes_every_check(exported: tuple[nn.Module, Path]) -> None:
    module, path = exported
    report = verify(path, teacher(module))
    assert [check.name for check in report.checks] == [DYNAMIC, SIZES, SAME_BITS, PARITY]
    assert failures(report) == {}


def test_a_fixed_time_axis(exported: tuple[nn.Module, Path], tmp_path: Path) -> None:
    def fix_time(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1

    failed = failures(verify(edited(exported[1], tmp_path / "model.onnx", fix_time)))
    assert "['batch', 1, 3]" in failed[DYNAMIC]
    assert SIZES in failed


def test_tampered_weights(exported: tuple[nn.Module, Path], tmp_path: Path) -> None:
    def nudge(model: onnx.ModelProto) -> None:
        weights = next(
            tensor for tensor in model.graph.initializer if tensor.dims[-1:] == [8] and len(tensor.dims) == 3
        )
        values = numpy_helper.to_array(weights).copy()
        values.flat[0] += 1e-3
        weights.CopyFrom(numpy_helper.from_array(values, weights.name))

    path = edited(exported[1], tmp_path / "model.onnx", nudge)
    assert failures(verify(path)) == {}
    assert list(failures(verify(path, teacher(exported[0])))) == [PARITY]


def replace_output(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    """Put `nodes`, which read "inner" and write the graph's first output, behind what wrote that output."""
    name = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["inner" if output == name else output for output in node.output]
    for node in nodes:
        node.output[:] = [name if output == "outer" else output for output in node.output]
    model.graph.node.extend(nodes)


def test_rows_that_depend_on_their_neighbours(exported: tuple[nn.Module, Path], tmp_path: Path) -> None:
    def centre(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "batch_axis"))
        replace_output(
            model,
            [
                helper.make_node("ReduceMean", ["inner", "batch_axis"], ["mean"], keepdims=1),
                helper.make_node("Sub", ["inner", "mean"], ["outer"]),
            ],
        )

    failed = failures(verify(edited(exported[1], tmp_path / "model.onnx", centre)))
    assert list(failed) == [SAME_BITS]


def test_last_bits_that_depend_on_the_place_in_a_tensor(exported: tuple[nn.Module, Path], tmp_path: Path) -> None:
    def softplus(model: onnx.ModelProto) -> None:
        replace_output(model, [helper.make_node("Softplus", ["inner"], ["outer"])])

    path = edited(exported[1], tmp_path / "model.onnx", softplus)
    assert list(failures(verify(path))) == [SAME_BITS]
    assert failures(verify(path, bit_exact=False)) == {}


def test_states_that_are_not_carried(exported: tuple[nn.Module, Path], tmp_path: Path) -> None:
    def forget(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.input[:] = ["forgotten" if name == "hidden" else name for name in node.input]
        model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "zero"))
        model.graph.node.insert(0, helper.make_node("Mul", ["hidden", "zero"], ["forgotten"]))

    failed = failures(verify(edited(exported[1], tmp_path / "model.onnx", forget), teacher(exported[0])))
    assert set(failed) == {SAME_BITS, PARITY}


def test_a_module_that_is_not_bit_exact_is_exported_only_when_that_is_accepted(tmp_path: Path) -> None:
    class Soft(Head):
        def forward(self, x: Tensor, states: object) -> tuple[Tensor, object]:
            y, states = super().forward(x, states)
            return nn.functional.softplus(y), states

    module = Soft(nn.GRU(3, 8, batch_first=True))
    spec, path = describe(module, ["a", "b", "c"]), tmp_path / "1" / "model.onnx"
    with pytest.raises(VerificationError, match="same bits"):
        export_streaming(module, spec, path)
    assert list(path.parent.iterdir()) == []
    export_streaming(module, spec, path, bit_exact=False)
    assert path.is_file()


def test_what_is_no_model_file(tmp_path: Path, exported: tuple[nn.Module, Path]) -> None:
    with pytest.raises(InputError, match="no such file"):
        verify(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("text")
    with pytest.raises(InputError, match="ONNX Runtime cannot open it"):
        verify(tmp_path / "text.onnx")
    bare = edited(exported[1], tmp_path / "bare.onnx", lambda model: model.ClearField("metadata_props"))
    with pytest.raises(InputError, match=r"no 'conveyor\.spec'"):
        verify(bare)
