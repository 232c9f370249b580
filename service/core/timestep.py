"""Between what a client sends and gets, and the rows of numbers that a model takes and gives."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from service.core.errors import InvalidTimestep
from service.core.session import Values
from service.core.spec import ModelSpec

MAX_ABS = 1e18
"""Largest reading that is believed. A float32 holds 3e38, but scaling and the first matrix product must not overflow:
a recurrent cell turns an infinity into a finite answer and a ruined state."""

SURELY = 0.99 * MAX_ABS
"""A number below this is believed, however it is rounded to float32."""


def rows(spec: ModelSpec, values: Values, what: str = "x") -> NDArray[np.float32]:
    """Return the timesteps as (time, features), float32, in the order of the model's features.

    Raises `InvalidTimestep`, which names the place and the features, for unknown or missing names, a wrong width,
    rows of different widths, no rows, and numbers that are not finite or beyond `MAX_ABS`. `what` is what the client
    calls the values.
    """
    if isinstance(values, dict):
        values = _by_name(spec, values)
    sequence = cast("Sequence[Any]", values)
    chunk: Sequence[Sequence[float]] = sequence if len(sequence) and _is_row(sequence[0]) else [sequence]
    for t, row in enumerate(chunk):
        where = what if chunk[0] is sequence else f"{what}[{t}]"
        if not _is_row(row):
            raise _invalid(spec, f"{where} is a number where the timesteps before it are lists of numbers")
        if len(row) != spec.width:
            raise _invalid(spec, f"{where} has {len(row)} numbers; the model takes {spec.width} per timestep")
    return _finite(spec, chunk)


def named(spec: ModelSpec, outputs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Return the outputs by name, each C-contiguous and of its own shape, from (…, `spec.output_size`)."""
    if len(spec.outputs) == 1:
        only = spec.outputs[0]
        return {only.name: outputs.reshape(outputs.shape[:-1] + only.shape)}
    parts = {}
    start = 0
    for output in spec.outputs:
        part = outputs[..., start : start + output.size]
        parts[output.name] = np.array(part.reshape(outputs.shape[:-1] + output.shape), order="C")
        start += output.size
    return parts


def _by_name(spec: ModelSpec, values: Mapping[str, float]) -> list[float]:
    try:
        row = [values[name] for name in spec.feature_names]
    except KeyError:
        missing = [name for name in spec.feature_names if name not in values]
        raise _invalid(spec, f"x lacks {', '.join(missing)}", missing_features=missing) from None
    if len(values) > len(row):
        unknown = [name for name in values if name not in spec.feature_names]
        raise _invalid(spec, f"x names {', '.join(unknown)}, unknown to the model", unknown_features=unknown)
    return row


def _is_row(value: object) -> bool:
    return isinstance(value, list | tuple | np.ndarray)


def _finite(spec: ModelSpec, chunk: Sequence[Sequence[float]]) -> NDArray[np.float32]:
    try:
        x = np.array(chunk, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise _invalid(spec, "x holds something that is not a number") from None
    # Written so that NaN, which compares as false with everything, is refused too.
    believable = np.abs(x) <= MAX_ABS
    if not believable.all():
        t, f = (int(i) for i in np.argwhere(~believable)[0])
        raise _invalid(
            spec,
            f"{spec.feature_names[f]} is {x[t, f]:g} in timestep {t + 1} of {len(chunk)}; "
            f"a finite number of at most {MAX_ABS:g} either way is needed",
        )
    return x.astype(np.float32)


def _invalid(spec: ModelSpec, detail: str, **fields: object) -> InvalidTimestep:
    return InvalidTimestep(detail, expected_features=list(spec.feature_names), **fields)
