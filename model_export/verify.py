"""Proves that a model file does what it promises, with the runtime that serves it.

Checks, in order: the declared shapes leave batch and time open; every batch size runs; a chunk gives bit for bit what
its single steps give, and a row what it gives alone, whatever rows stand beside it; and 2,000 carried steps agree with
PyTorch's own forward of the original module, or stay close to it where the file is quantised.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from model_export.deviation import deviations
from model_export.errors import VerificationError
from model_export.runtime import Array, StreamingModel

BATCHES = (1, 2, 3, 17, 64)
# (batch, time) of the calls that are compared with single steps; beyond what one service batch would hold.
CHUNKS = ((1, 2), (1, 512), (2, 7), (3, 1), (3, 128), (17, 5), (64, 2), (100, 1), (100, 16), (128, 3), (256, 1))
ROWS_COMPARED = 5
PARITY_STEPS = 2000
PARITY_BATCH = 3
TOLERANCE = 1e-5
# Stands for a difference that has no size, that between 0 and -0.
SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Check:
    """One promise, and whether it is kept. `detail` is the measured figure, or what went wrong."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Report:
    """All checks of one file."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def require(self) -> None:
        """Raises `VerificationError`, which lists the failed checks, unless all have passed."""
        if failed := [f"{check.name}: {check.detail}" for check in self.checks if not check.passed]:
            raise VerificationError("the model file fails its verification: " + "; ".join(failed))


def verify(path: Path, teacher: nn.Module | None = None, *, bit_exact: bool = True, seed: int = 0) -> Report:
    """Check the model file at `path`.

    `teacher` is the module that the file was exported from, in eval mode and with flat arguments, see
    `model_export.flat.FlatModule`; without it the comparison with PyTorch is left out. With ``bit_exact=False`` single
    steps may differ from chunks by `TOLERANCE`. Raises `InputError` when the file cannot be opened or has no readable
    specification.
    """
    model = StreamingModel(path)
    checks: list[tuple[str, Callable[[], str]]] = [
        ("batch and time are dynamic", lambda: _declared(model)),
        ("every batch size runs", lambda: _batch_sizes(model, seed)),
        ("single steps alone give the same bits", lambda: _same_bits(model, seed, 0.0 if bit_exact else TOLERANCE)),
    ]
    if teacher is not None and "quantization" in model.spec.training:
        checks.append((f"{PARITY_STEPS:,} carried steps stay close to PyTorch", lambda: _close(model, teacher, seed)))
    elif teacher is not None:
        checks.append((f"{PARITY_STEPS:,} carried steps equal PyTorch", lambda: _parity(model, teacher, seed)))
    return Report(tuple(_run(name, check) for name, check in checks))


class _Failed(Exception):
    """A promise is broken, and how."""


def _run(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except _Failed as failure:
        return Check(name, False, str(failure))
    except Exception as error:  # ONNX Runtime raises plain exceptions of its own kinds
        return Check(name, False, str(error).splitlines()[0] if str(error) else type(error).__name__)


def _declared(model: StreamingModel) -> str:
    spec = model.spec
    expected: dict[str, tuple[int | None, ...]] = {spec.input: (None, None, spec.width)}
    for state in spec.states:
        shape: list[int | None] = list(state.shape)
        shape.insert(state.batch_axis, None)
        expected[state.input] = expected[state.output] = tuple(shape)
    expected |= {output.tensor: (None, None, *output.shape) for output in spec.outputs}
    declared = {value.name: value for value in (*model.session.get_inputs(), *model.session.get_outputs())}
    if missing := expected.keys() ^ declared.keys():
        raise _Failed(f"the graph and its specification do not have the same tensors: {', '.join(sorted(missing))}")
    for name, shape_expected in expected.items():
        value = declared[name]
        found = tuple(length if isinstance(length, int) else None for length in value.shape)
        if value.type != "tensor(float)" or found != shape_expected:
            wanted = [length or "dynamic" for length in shape_expected]
            raise _Failed(f"{name} is {value.type} {value.shape}, where tensor(float) {wanted} is needed")
    return f"{len(expected)} tensors as specified"


def _batch_sizes(model: StreamingModel, seed: int) -> str:
    for batch in BATCHES:
        for time in (1, 4):
            outputs, states = model.run(inputs(model, batch, time, seed), model.zero_states(batch))
            shapes = [array.shape for array in (*outputs, *states)]
            wanted = [(batch, time, *output.shape) for output in model.spec.outputs]
            wanted += [model.state_shape(index, batch) for index in range(len(states))]
            if shapes != wanted:
                raise _Failed(f"at batch {batch} and time {time} the shapes are {shapes}, not {wanted}")
            if not all(np.isfinite(array).all() for array in (*outputs, *states)):
                raise _Failed(f"at batch {batch} and time {time} there are results that are not finite")
    return "batch " + ", ".join(map(str, BATCHES))


def _same_bits(model: StreamingModel, seed: int, tolerance: float) -> str:
    compared, worst = 0, 0.0
    for batch, time in CHUNKS:
        x, states = inputs(model, batch, time, seed), _warm_states(model, batch, seed)
        together = model.run(x, states)
        for row in np.unique(np.linspace(0, batch - 1, ROWS_COMPARED, dtype=int)):
            alone = _single_steps(model, x[[row]], _row_of_states(model, states, row))
            # A number that is none spreads through whatever it touches: it must not reach the row.
            others = np.where(np.arange(batch)[:, None, None] == row, x, np.float32(np.nan))
            beside = model.run(others, states)
            for what, (outputs, news) in (("a chunk", together), ("a row with NaN in its neighbours", beside)):
                mine = [*(output[[row]] for output in outputs), *_row_of_states(model, news, row)]
                difference = max(_difference(a, b) for a, b in zip(mine, alone, strict=True))
                if difference > tolerance:
                    raise _Failed(f"{what} differs by {difference:.2g} at row {row} of batch {batch}, time {time}")
                worst = max(worst, difference)
                compared += sum(array.size for array in alone)
    return f"{compared:,} numbers, " + (f"largest difference {worst:.2g}" if worst else "all equal")


def _single_steps(model: StreamingModel, x: Array, states: list[Array]) -> list[Array]:
    """A chunk given a step at a time: outputs along the time axis, then the last states."""
    steps = []
    for time in range(x.shape[1]):
        outputs, states = model.run(x[:, [time]], states)
        steps.append(outputs)
    return [*(np.concatenate(outputs, axis=1) for outputs in zip(*steps, strict=True)), *states]


def _difference(a: Array, b: Array) -> float:
    """The largest absolute difference; 0 only for equal bits, infinite where one of the two is not a number."""
    if a.tobytes() == b.tobytes():
        return 0.0
    difference = float(np.max(np.abs(a.astype(np.float64) - b)))
    return (difference or SMALLEST) if math.isfinite(difference) else math.inf


def _both(model: StreamingModel, teacher: nn.Module, seed: int) -> tuple[list[Array], list[Array]]:
    """Outputs and last states of the file, and of its teacher, after `PARITY_STEPS` carried steps."""
    x = inputs(model, PARITY_BATCH, PARITY_STEPS, seed)
    ours = _single_steps(model, x, model.zero_states(PARITY_BATCH))
    with torch.no_grad():
        zeros = [torch.from_numpy(state) for state in model.zero_states(PARITY_BATCH)]
        return ours, [tensor.numpy() for tensor in teacher(torch.from_numpy(x), *zeros)]


def _close(model: StreamingModel, teacher: nn.Module, seed: int) -> str:
    ours, theirs = (arrays[: len(model.spec.outputs)] for arrays in _both(model, teacher, seed))
    apart = deviations(model.spec, ours, theirs)
    if not all(each.acceptable for each in apart):
        raise _Failed("; ".join(map(str, apart)))
    return "; ".join(map(str, apart))


def _parity(model: StreamingModel, teacher: nn.Module, seed: int) -> str:
    ours, theirs = _both(model, teacher, seed)
    names = [output.name for output in model.spec.outputs] + [state.name for state in model.spec.states]
    worst, name = max(
        (_difference(mine, other) / _scale(model, name, other), name)
        for mine, other, name in zip(ours, theirs, names, strict=True)
    )
    if not worst < TOLERANCE:
        raise _Failed(f"{name} differs by {worst:.2g} in scaled units, {TOLERANCE:g} at most is allowed")
    return f"largest difference {worst:.2g} in scaled units ({name})"


def _scale(model: StreamingModel, name: str, values: Array) -> float:
    """What one scaled unit is in raw ones: the train rows' deviation, or else that of the teacher's own results."""
    scaling = model.spec.training.get("scaling", {})
    return float(scaling[name]["std"]) if name in scaling else max(1.0, float(values.std()))


def inputs(model: StreamingModel, batch: int, time: int, seed: int) -> Array:
    """Random x (batch, time, features): uniform over the range of the train rows, or standard normal without one."""
    rng = np.random.default_rng((seed, batch, time))
    x = rng.standard_normal((batch, time, model.spec.width))
    for index, feature in enumerate(model.spec.features):
        if feature.minimum is not None and feature.maximum is not None:
            x[..., index] = rng.uniform(feature.minimum, feature.maximum, (batch, time))
    return x.astype(np.float32)


def _warm_states(model: StreamingModel, batch: int, seed: int) -> list[Array]:
    return model.run(inputs(model, batch, 8, seed + 1), model.zero_states(batch))[1]


def _row_of_states(model: StreamingModel, states: list[Array], row: int) -> list[Array]:
    return [np.take(array, [row], state.batch_axis) for array, state in zip(states, model.spec.states, strict=True)]
