"""`Model` on ONNX Runtime's CPU provider."""

import hashlib
import time
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from service.core.columns import Floats
from service.core.errors import ModelFailed
from service.core.session import ModelRef
from service.core.spec import SPEC_KEY, ModelSpec, SpecError

DIGEST_BYTES = 8
_TRIALS = 5


class UnusableModel(Exception):
    """A model file cannot be served; the message says why."""


class OnnxModel:
    """See `service.core.ports.Model`. Made by `load`, which raises `UnusableModel`."""

    def __init__(self, ref: ModelRef, spec: ModelSpec, session: ort.InferenceSession) -> None:
        self.ref = ref
        self.spec = spec
        self._session = session
        self._results = [output.tensor for output in spec.outputs] + [state.output for state in spec.states]
        # For each state: its name, where it lies in a session's flat state, its shape, and the axis orders that move
        # the batch from the front to where the graph wants it, and back.
        self._states: list[tuple[str, slice, tuple[int, ...], list[int], list[int]]] = []
        start = 0
        for state in spec.states:
            to_graph = list(range(1, len(state.shape) + 1))
            to_graph.insert(state.batch_axis, 0)
            from_graph = [to_graph.index(axis) for axis in range(len(to_graph))]
            self._states.append((state.input, slice(start, start + state.size), state.shape, to_graph, from_graph))
            start += state.size
        self._sizes: list[int] = []
        self._seconds: list[float] = []

    @classmethod
    def load(cls, path: Path, name: str, version: str) -> "OnnxModel":
        """Read a model file and hold its specification against its graph."""
        content = path.read_bytes()
        try:
            session = ort.InferenceSession(content, _options(), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises classes of its own, one per status code
            raise UnusableModel(_first_line(error)) from error
        text = session.get_modelmeta().custom_metadata_map.get(SPEC_KEY)
        if text is None:
            raise UnusableModel(f"the file has no {SPEC_KEY} in its metadata; export it with conveyor-export")
        try:
            spec = ModelSpec.from_json(text)
        except SpecError as error:
            raise UnusableModel(f"{SPEC_KEY}: {error}") from error
        _require_tensors("input", session.get_inputs(), _expected_inputs(spec))
        _require_tensors("output", session.get_outputs(), _expected_outputs(spec))
        return cls(ModelRef(name, version, hashlib.sha256(content).digest()[:DIGEST_BYTES]), spec, session)

    def run(self, x: Floats, state: Floats) -> tuple[Floats, Floats]:
        batch, steps = x.shape[:2]
        feeds: dict[str, Any] = {self.spec.input: x}
        for name, place, shape, to_graph, _ in self._states:
            feeds[name] = np.ascontiguousarray(state[:, place].reshape(batch, *shape).transpose(to_graph))
        try:
            results = self._session.run(self._results, feeds)
        except Exception as error:  # as above
            raise ModelFailed(f"model {self.ref.name} version {self.ref.version}: {_first_line(error)}") from error
        count = len(self.spec.outputs)
        outputs = [result.reshape(batch, steps, -1) for result in results[:count]]
        next_state = np.empty_like(state)
        for (_, place, _, _, from_graph), result in zip(self._states, results[count:], strict=True):
            next_state[:, place] = result.transpose(from_graph).reshape(batch, -1)
        return outputs[0] if count == 1 else np.concatenate(outputs, axis=-1), next_state

    def seconds(self, batch: int, time: int) -> float:
        """See `Model.seconds`. Between the sizes that were measured, that of the next larger one; 0 before warm-up."""
        if not self._seconds:
            return 0.0
        return self._seconds[min(bisect_left(self._sizes, batch), len(self._sizes) - 1)] * time

    def warm_up(self, max_batch: int) -> None:
        """Run every batch size once (a first run of a size is slow), and find out how long runs take.

        Raises `UnusableModel` where a run fails or its results are not of the specified sizes.
        """
        for batch in range(1, max_batch + 1):
            self._trial(batch)
        self._sizes = sorted({min(2**i, max_batch) for i in range(max_batch.bit_length() + 1)})
        # The shortest of a few: the others were disturbed.
        self._seconds = [min(self._trial(size) for _ in range(_TRIALS)) for size in self._sizes]

    def _trial(self, batch: int) -> float:
        """Make a run of one timestep; return how long it took, in seconds."""
        x = np.ones((batch, 1, self.spec.width), np.float32)
        state = np.zeros((batch, self.spec.state_size), np.float32)
        started = time.perf_counter()
        try:
            outputs, _ = self.run(x, state)
        except (ModelFailed, ValueError) as error:
            raise UnusableModel(f"a trial run with batch size {batch} failed: {error}") from error
        if outputs.shape != (batch, 1, self.spec.output_size):
            raise UnusableModel(
                f"a trial run gave outputs of shape {outputs.shape}, specified are {(batch, 1, self.spec.output_size)}"
            )
        return time.perf_counter() - started


def _options() -> ort.SessionOptions:
    """One thread, no spinning: at these sizes a second thread costs more than it gives, above all in p99."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


# A declared dimension: a number, or None for one that must be free.
Dims = tuple[int | None, ...]


def _expected_inputs(spec: ModelSpec) -> Iterable[tuple[str, Dims]]:
    yield spec.input, (None, None, spec.width)
    for state in spec.states:
        yield state.input, _with_batch(state.shape, state.batch_axis)


def _expected_outputs(spec: ModelSpec) -> Iterable[tuple[str, Dims]]:
    for output in spec.outputs:
        yield output.tensor, (None, None, *output.shape)
    for state in spec.states:
        yield state.output, _with_batch(state.shape, state.batch_axis)


def _with_batch(shape: tuple[int, ...], axis: int) -> Dims:
    return (*shape[:axis], None, *shape[axis:])


def _require_tensors(kind: str, declared: list[Any], expected: Iterable[tuple[str, Dims]]) -> None:
    """Raise `UnusableModel` unless the graph declares the tensors that its specification names, and no other input."""
    by_name = {tensor.name: tensor for tensor in declared}
    for name, dims in expected:
        tensor = by_name.pop(name, None)
        if tensor is None:
            raise UnusableModel(f"the specification names the {kind} {name!r}, which the graph does not have")
        if tensor.type != "tensor(float)":
            raise UnusableModel(f"the {kind} {name!r} is {tensor.type}; float32 is served")
        if len(tensor.shape) != len(dims) or not all(map(_fits, tensor.shape, dims)):
            wanted = [length if length is not None else "dynamic" for length in dims]
            raise UnusableModel(f"the {kind} {name!r} is declared as {tensor.shape}; {wanted} is needed")
    if kind == "input" and by_name:
        raise UnusableModel(f"the graph has inputs that the specification does not name: {', '.join(by_name)}")


def _fits(declared: Any, wanted: int | None) -> bool:
    return not isinstance(declared, int) if wanted is None else declared == wanted or not isinstance(declared, int)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
