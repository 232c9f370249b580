"""The `ModelSpec` of a module, found by running it: what its states and outputs are called and how they are shaped."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from model_export.cells import recurrent_layers, streaming_copy
from model_export.errors import StreamingError
from model_export.flat import FlatModule, flatten, initial_states, is_batch_first
from service.core.spec import Axis, Feature, ModelSpec, Output, State

# Two different probes tell the batch and time axes from axes whose length only happens to match.
_PROBES = ((2, 3), (5, 7))


def describe(
    module: nn.Module,
    features: Sequence[str | Feature],
    *,
    outputs: Sequence[str | Output] | None = None,
    batch_first: bool | None = None,
    sampling_period_s: float | None = None,
    description: str = "",
    metrics: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> ModelSpec:
    """The specification of `module`, to hand to `export_streaming`, after changing whatever should read better.

    Args:
        module: its ``forward(x, states)`` returns ``(outputs, new_states)``; x is float32 (batch, time, features) and
            every output begins with (batch, time), or (time, batch) in both when its layers are not ``batch_first``.
        features: the columns of x, in order: names, or `Feature`s with units.
        outputs: names for the outputs in order, or whole `Output`s with axis labels and units. By default a dict's
            keys are the names, a lone tensor is called ``output`` and a tuple's items ``output_0``, ``output_1``, …;
            axes are called ``axis_0``, … and labelled from 0.
        batch_first: the layout of x; by default that of the module's recurrent layers.
        sampling_period_s: seconds between two timesteps, if the model was trained at a fixed period.
        description, metrics, training: passed on to the specification.

    Raises:
        StreamingError: the module cannot be streamed, or fails on an example of that width; the message says why.
    """
    layout = is_batch_first(module) if batch_first is None else batch_first
    replica = streaming_copy(module)
    probes = [
        _probe(replica, initial_states(module, batch), layout, batch, time, len(features)) for batch, time in _PROBES
    ]
    return ModelSpec(
        features=tuple(Feature(item) if isinstance(item, str) else item for item in features),
        outputs=_outputs(probes[0][0], probes[1][0], outputs),
        states=_states(module),
        sampling_period_s=sampling_period_s,
        description=description,
        metrics=metrics or {},
        training=training or {},
    )


NamedTensors = list[tuple[str, Tensor]]


def _probe(
    replica: nn.Module, states: Any, layout: bool, batch: int, time: int, width: int
) -> tuple[NamedTensors, list[Tensor]]:
    leaves = [tensor for _, tensor in flatten(states)]
    try:
        with torch.no_grad():
            found, news = FlatModule(replica, states, layout).named(torch.zeros(batch, time, width), *leaves)
    except StreamingError:
        raise
    except Exception as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StreamingError(
            f"forward fails on an x of (batch {batch}, time {time}, features {width}) with its states: {first_line}"
        ) from error
    for path, tensor in found:
        if tuple(tensor.shape[:2]) != (batch, time):
            raise StreamingError(
                f"output {path or 'output'!r} has shape {tuple(tensor.shape)} for batch {batch} and time {time}: "
                "it has to begin with (batch, time), one result per timestep"
            )
        if tensor.dtype != torch.float32:
            raise StreamingError(f"output {path or 'output'!r} is {tensor.dtype}, not float32")
    if [tensor.shape for tensor in news] != [tensor.shape for tensor in leaves]:
        raise StreamingError(
            f"the new states have shapes {[tuple(tensor.shape) for tensor in news]} where the states given have "
            f"{[tuple(tensor.shape) for tensor in leaves]}: they have to match, to be carried"
        )
    return found, news


def _outputs(one: NamedTensors, other: NamedTensors, wanted: Sequence[str | Output] | None) -> tuple[Output, ...]:
    names = list(wanted) if wanted is not None else [_default_name(path) for path, _ in one]
    if len(names) != len(one):
        raise StreamingError(f"outputs names {len(names)}, but forward returns {len(one)}")
    found = []
    for name, (path, tensor), (_, again) in zip(names, one, other, strict=True):
        shape = tuple(tensor.shape[2:])
        if shape != tuple(again.shape[2:]):
            raise StreamingError(f"output {path or 'output'!r} changes its shape with the batch or the time")
        if isinstance(name, Output):
            if name.shape != shape:
                raise StreamingError(f"output {name.name!r}: its axes have lengths {name.shape}, the tensor {shape}")
            found.append(name)
        else:
            axes = tuple(Axis(f"axis_{i}", tuple(range(length))) for i, length in enumerate(shape))
            found.append(Output(name, f"output_{name}", axes=axes))
    return tuple(found)


def _default_name(path: str) -> str:
    if not path:
        return "output"
    return f"output_{path}" if path[0].isdigit() else path


def _states(module: nn.Module) -> tuple[State, ...]:
    one, other = (flatten(initial_states(module, batch)) for batch, _ in _PROBES)
    found = []
    for (path, tensor), (_, again) in zip(one, other, strict=True):
        axes = [axis for axis, (a, b) in enumerate(zip(tensor.shape, again.shape, strict=True)) if a != b]
        if len(axes) != 1:
            raise StreamingError(f"state {path or 'state'!r} has no axis that is the batch: {tuple(tensor.shape)}")
        shape = list(tensor.shape)
        del shape[axes[0]]
        name = _state_name(module, path)
        found.append(State(name, name, f"next_{name}", tuple(shape), axes[0]))
    return tuple(found)


def _state_name(module: nn.Module, path: str) -> str:
    """ "hidden" and "cell", with the layer's name before it where there are several; else after the caller's nest."""
    if callable(getattr(module, "initial_states", None)):
        return f"state_{path}" if not path or path[0].isdigit() else path
    layers = list(recurrent_layers(module))
    if len(layers) == 1:
        return "cell" if path == "1" else "hidden"
    index, _, part = path.partition("_")
    return f"{layers[int(index)].replace('.', '_')}_{'cell' if part == '1' else 'hidden'}"
