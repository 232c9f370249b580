"""A PyTorch module as one self-contained, self-describing ``model.onnx`` that is served a timestep at a time."""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import onnx_ir
import torch
from torch import nn
from torch.export import Dim

from model_export.cells import streaming_copy
from model_export.draft import drafted, require_free
from model_export.errors import StreamingError
from model_export.flat import FlatModule, flatten, initial_states, is_batch_first
from model_export.translate import OPSET, TABLE
from model_export.verify import Report, verify
from service.core.spec import SPEC_KEY, ModelSpec

# Neither 1, which torch.export would take for a constant, nor equal to each other.
_EXAMPLE_BATCH, _EXAMPLE_TIME = 2, 3


def export_streaming(
    module: nn.Module,
    spec: ModelSpec,
    path: str | Path,
    *,
    batch_first: bool | None = None,
    bit_exact: bool = True,
    force: bool = False,
) -> Report:
    """Write `module` to `path` as a model file, having verified it against the module itself.

    The module is left as it is: a copy in eval mode is exported. Nothing is left at `path` when anything fails.

    Args:
        module: its ``forward(x, states)`` returns ``(outputs, new_states)``, see `describe`.
        spec: what the file says about itself; `describe` makes one.
        path: the file, e.g. ``models/NAME/1/model.onnx``; missing folders are made.
        batch_first: the layout of x; by default that of the module's recurrent layers.
        bit_exact: require that a chunk and a batch give the very bits that single steps alone give. False accepts
            a difference in the last bits, for operators whose kernels cannot keep that (Softplus, Log).
        force: overwrite an existing file.

    Returns:
        The report of the verification, all of whose checks have passed.

    Raises:
        StreamingError: the module cannot be streamed, or does not fit the spec; the message says why.
        VerificationError: the file would not do what it promises.
        InputError: the file exists already, and `force` is not set.
    """
    path = Path(path)
    require_free(path, force)
    layout = is_batch_first(module) if batch_first is None else batch_first
    states = initial_states(module, _EXAMPLE_BATCH)
    _require_fit(spec, [tuple(tensor.shape) for _, tensor in flatten(states)])
    program = _export(FlatModule(streaming_copy(module), states, layout).eval(), spec)
    _strip(program.model.graph)
    program.model.metadata_props[SPEC_KEY] = spec.to_json()
    with drafted(path) as draft:
        program.save(draft, external_data=False)
        report = verify(
            draft, teacher=FlatModule(copy.deepcopy(module).cpu(), states, layout).eval(), bit_exact=bit_exact
        )
        report.require()
    return report


def _require_fit(spec: ModelSpec, shapes: list[tuple[int, ...]]) -> None:
    told = []
    for state in spec.states:
        shape = list(state.shape)
        shape.insert(state.batch_axis, _EXAMPLE_BATCH)
        told.append(tuple(shape))
    if told != shapes:
        raise StreamingError(f"the spec's states have shapes {told} at batch {_EXAMPLE_BATCH}, the module's {shapes}")


def _export(module: FlatModule, spec: ModelSpec) -> torch.onnx.ONNXProgram:
    batch, time = Dim("batch"), Dim("time")
    leaves = tuple(tensor for _, tensor in flatten(module.states))
    x = torch.zeros(_EXAMPLE_BATCH, _EXAMPLE_TIME, spec.width)
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                (x, *leaves),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                custom_translation_table=TABLE,
                input_names=[spec.input, *(state.input for state in spec.states)],
                output_names=[*(output.tensor for output in spec.outputs), *(state.output for state in spec.states)],
                dynamic_shapes=({0: batch, 1: time}, tuple({state.batch_axis: batch} for state in spec.states)),
            )
    except Exception as error:
        raise StreamingError(f"torch.export cannot trace the module: {_root_cause(error)}") from error
    program = cast("torch.onnx.ONNXProgram", program)
    # The exporter falls back to a fixed shape where it finds no other, and says nothing.
    declared = program.model.graph.inputs[0].shape
    if declared is None or any(isinstance(length, int) for length in declared[:2]):
        raise StreamingError(
            f"the export fixes batch or time: x is {declared}; a loop over timesteps in forward does that, or a length "
            "used as a number"
        )
    return program


def _strip(graph: onnx_ir.Graph) -> None:
    """Takes out the exporter's notes, which hold stack traces with the paths of the machine that exported."""
    graph.metadata_props.clear()
    for node in graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*graph.inputs, *graph.initializers.values()):
        value.metadata_props.clear()


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences what the exporter says on every export and nobody can act on; everything else is still heard."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "# The axis name", UserWarning)
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            yield
    finally:
        registration.setLevel(level)
