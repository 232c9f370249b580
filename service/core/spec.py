"""What a model file says about itself: the one contract between training and serving.

A model file is an ONNX file whose ``metadata_props`` carry this specification as JSON under `SPEC_KEY`. The
exporter writes it, the service reads it, and neither needs to know anything else about the other.

Shapes, in the order of their axes:

=================  ==========================================================================================
input              ``(batch, time, features)``, float32, raw sensor units
state, in and out  ``shape`` with the batch axis put in at ``batch_axis``, float32
output             ``(batch, time, *axis lengths)``, float32, raw units
=================  ==========================================================================================

Batch and time are dynamic in all of them.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

SPEC_KEY = "conveyor.spec"
SPEC_FORMAT = 1

MAX_JSON = 2**20
"""Characters of a specification as JSON."""
MAX_ITEMS = 4096
"""Features, outputs, states, axes of an output or of a state, each."""
MAX_DEPTH = 32
"""Objects and lists within each other."""
MAX_SIZE = 2**20
"""Numbers in one session's states, or in one timestep's outputs: as float32, 4 MiB."""


class SpecError(ValueError):
    """A specification is malformed; the message names the field and what would be right."""


@dataclass(frozen=True)
class Feature:
    """One number of a timestep: a sensor's reading in its raw unit.

    `minimum` and `maximum` are what the training rows held: a hint for people and playgrounds, never a limit.
    """

    name: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class Axis:
    """One axis of an output, e.g. ``Axis("horizon", (1, 2, 3))`` or ``Axis("quantile", (0.1, 0.5, 0.9))``."""

    name: str
    labels: tuple[str | float | int, ...]


@dataclass(frozen=True)
class Output:
    """A named result of each timestep. `tensor` is the graph's name for it, `name` the client's."""

    name: str
    tensor: str
    unit: str = ""
    axes: tuple[Axis, ...] = ()

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape for one timestep of one session: the lengths of the axes."""
        return tuple(len(axis.labels) for axis in self.axes)

    @cached_property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class State:
    """A tensor that is carried from one timestep to the next. `shape` is that of one session, without the batch."""

    name: str
    input: str
    output: str
    shape: tuple[int, ...]
    batch_axis: int

    @cached_property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class ModelSpec:
    """What a client and the service need to know of a model.

    `sampling_period_s` is the time in seconds between two timesteps, when the model was trained at a fixed one.
    `metrics` are the training run's own figures; `training` is its provenance (cell, layers, hidden units, digest
    of the run, …). Both are free-form JSON for people to read.
    """

    features: tuple[Feature, ...]
    outputs: tuple[Output, ...]
    states: tuple[State, ...]
    input: str = "x"
    sampling_period_s: float | None = None
    description: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind, names in (
            ("features", [feature.name for feature in self.features]),
            ("outputs", [output.name for output in self.outputs]),
            ("states", [state.name for state in self.states]),
        ):
            if not names:
                raise SpecError(f"{kind}: at least one is needed")
            if len(names) > MAX_ITEMS:
                raise SpecError(f"{kind}: there are {len(names)}, at most {MAX_ITEMS} are possible")
            _require_distinct(kind, names)
        _require_distinct("graph inputs", [self.input, *(state.input for state in self.states)])
        _require_distinct(
            "graph outputs", [*(o.tensor for o in self.outputs), *(state.output for state in self.states)]
        )
        for state in self.states:
            if not 0 <= state.batch_axis <= len(state.shape):
                raise SpecError(
                    f"states.{state.name}.batch_axis: {state.batch_axis} is not between 0 and {len(state.shape)}"
                )
            if any(length < 1 for length in state.shape):
                raise SpecError(f"states.{state.name}.shape: {list(state.shape)} has a length below 1")
        for kind, size in (("states", self.state_size), ("outputs", self.output_size)):
            if size > MAX_SIZE:
                raise SpecError(f"{kind}: they hold {size} numbers, at most {MAX_SIZE} are possible")

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @cached_property
    def width(self) -> int:
        """Numbers in one timestep."""
        return len(self.features)

    @cached_property
    def state_size(self) -> int:
        """Numbers in one session's states, all of them laid end to end in the order of `states`."""
        return sum(state.size for state in self.states)

    @cached_property
    def output_size(self) -> int:
        """Numbers in one timestep's outputs, all of them laid end to end in the order of `outputs`."""
        return sum(output.size for output in self.outputs)

    def to_json(self) -> str:
        return json.dumps({"format": SPEC_FORMAT, **asdict(self)}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "ModelSpec":
        """Read what `to_json` wrote.

        Raises `SpecError` with the field's path for anything that is missing, of the wrong type or contradictory.
        """
        if len(text) > MAX_JSON:
            raise SpecError(f"it has {len(text)} characters, at most {MAX_JSON} are possible")
        try:
            document = json.loads(text)
            # What a client is going to be told must be JSON again: no NaN, no 1e999, no half of a surrogate pair.
            json.dumps(document, allow_nan=False, ensure_ascii=False).encode()
            _require_depth(document, MAX_DEPTH)
        except RecursionError:
            raise SpecError("not JSON: nested too deeply") from None
        except ValueError as error:
            raise SpecError(f"not JSON: {error}") from None
        top = _Reader(document, "")
        if (version := top.get("format", int)) != SPEC_FORMAT:
            raise SpecError(f"format: {version} is not {SPEC_FORMAT}, the one that this release reads")
        return cls(
            features=tuple(
                Feature(
                    item.get("name", str),
                    item.get("unit", str, ""),
                    item.number("minimum"),
                    item.number("maximum"),
                )
                for item in top.items("features")
            ),
            outputs=tuple(
                Output(
                    item.get("name", str),
                    item.get("tensor", str),
                    item.get("unit", str, ""),
                    tuple(Axis(axis.get("name", str), axis.labels()) for axis in item.items("axes")),
                )
                for item in top.items("outputs")
            ),
            states=tuple(
                State(
                    item.get("name", str),
                    item.get("input", str),
                    item.get("output", str),
                    item.shape("shape"),
                    item.get("batch_axis", int),
                )
                for item in top.items("states")
            ),
            input=top.get("input", str),
            sampling_period_s=top.number("sampling_period_s"),
            description=top.get("description", str, ""),
            metrics=top.get("metrics", dict, {}),
            training=top.get("training", dict, {}),
        )


class _Reader:
    """Typed access to a JSON object that knows its own path, so that every complaint can name the field."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise SpecError(f"{path or 'specification'}: an object is needed, not {type(value).__name__}")
        self._value = value
        self._path = path

    def _at(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        value = self._value.get(key, default)
        if not isinstance(value, kind) or isinstance(value, bool):
            problem = "is missing" if value is None else f"{value!r} is not of type {kind.__name__}"
            raise SpecError(f"{self._at(key)}: {problem}")
        return value

    def number(self, key: str) -> float | None:
        value = self._value.get(key)
        if value is not None and type(value) not in (int, float):
            raise SpecError(f"{self._at(key)}: {value!r} is not a number")
        return None if value is None else float(value)

    def items(self, key: str) -> list["_Reader"]:
        return [_Reader(item, f"{self._at(key)}[{i}]") for i, item in enumerate(self.get(key, list))]

    def shape(self, key: str) -> tuple[int, ...]:
        lengths = self.get(key, list)
        if not all(type(length) is int for length in lengths):
            raise SpecError(f"{self._at(key)}: {lengths!r} is not a list of whole numbers")
        return tuple(lengths)

    def labels(self) -> tuple[str | float | int, ...]:
        labels = self.get("labels", list)
        if not labels or not all(type(label) in (str, int, float) for label in labels):
            raise SpecError(f"{self._at('labels')}: {labels!r} is not a list of names or numbers")
        return tuple(labels)


def _require_distinct(kind: str, names: Sequence[str]) -> None:
    seen = set()
    for name in names:
        if not name:
            raise SpecError(f"{kind}: a name is empty")
        if name in seen:
            raise SpecError(f"{kind}: {name!r} is there more than once")
        seen.add(name)


def _require_depth(value: Any, depth: int) -> None:
    if isinstance(value, dict | list):
        if depth == 0:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        for item in value.values() if isinstance(value, dict) else value:
            _require_depth(item, depth - 1)
