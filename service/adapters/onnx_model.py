"""`Model` on ONNX Runtime's CPU provider."""

import hashlib
import math
import time
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import onnxruntime as ort

from service.adapters.onnx_file import UnusableModel, inspect
from service.core.columns import Floats
from service.core.errors import ModelFailed
from service.core.session import ModelRef
from service.core.spec import SPEC_KEY, ModelSpec, SpecError

__all__ = ["DIGEST_BYTES", "OnnxModel", "UnusableModel"]

DIGEST_BYTES = 8
MAX_MODEL_BYTES = 512 * 2**20
MAX_LOOP_S = 10.0
"""Longest run of a graph with a `Loop`, seconds: how often that goes round may depend on what a client sends."""
_TRIALS = 5
_TOLERANCE = 1e-3
"""Relative difference between a row's numbers alone and among others that is put down to rounding."""


class OnnxModel:
    """See `service.core.ports.Model`. Made by `load`, which raises `UnusableModel`."""

    def __init__(self, ref: ModelRef, spec: ModelSpec, session: ort.InferenceSession, *, loops: bool = False) -> None:
        self.ref = ref
        self.spec = spec
        self._session = session
        self._loops = loops
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
        # For each result where the batch goes (None: in front, with the time behind it), and its shape without them.
        self._shapes: list[tuple[int | None, tuple[int, ...]]] = [
            *((None, output.shape) for output in spec.outputs),
            *((state.batch_axis, state.shape) for state in spec.states),
        ]
        self._sizes: list[int] = []
        self._seconds: list[float] = []

    @classmethod
    def load(cls, path: Path, name: str, version: str, *, max_bytes: int = MAX_MODEL_BYTES) -> "OnnxModel":
        """Read a model file and hold its specification against its graph. Raises `OSError` too."""
        content = read(path, max_bytes)
        facts = inspect(content)
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
        digest = hashlib.sha256(content).digest()[:DIGEST_BYTES]
        return cls(ModelRef(name, version, digest), spec, session, loops=facts.loops)

    def run(self, x: Floats, state: Floats) -> tuple[Floats, Floats]:
        batch, steps = x.shape[:2]
        feeds: dict[str, Any] = {self.spec.input: x}
        for name, place, shape, to_graph, _ in self._states:
            feeds[name] = np.ascontiguousarray(state[:, place].reshape(batch, *shape).transpose(to_graph))
        try:
            results = self._bounded(feeds) if self._loops else self._session.run(self._results, feeds)
        except Exception as error:  # as above
            raise ModelFailed(f"model {self.ref.name} version {self.ref.version}: {_first_line(error)}") from error
        self._require_shapes(results, batch, steps)
        count = len(self.spec.outputs)
        outputs = [result.reshape(batch, steps, -1) for result in results[:count]]
        next_state = self._flat(results[count:], batch)
        return outputs[0] if count == 1 else np.concatenate(outputs, axis=-1), next_state

    def _flat(self, results: Any, batch: int) -> Floats:
        """Return the states that a run gave, laid end to end for each session."""
        if batch == 1:  # where the batch's axis lies makes no difference then
            return np.concatenate([result.reshape(1, -1) for result in results], axis=1)
        flat = np.empty((batch, self.spec.state_size), np.float32)
        for (_, place, shape, _, from_graph), result in zip(self._states, results, strict=True):
            flat[:, place].reshape(batch, *shape)[...] = result.transpose(from_graph)  # a view, written into
        return flat

    def _bounded(self, feeds: dict[str, Any]) -> Any:
        """Run a graph that may go round and round, and end it after `MAX_LOOP_S`."""
        options = ort.RunOptions()
        timer = Timer(MAX_LOOP_S, setattr, (options, "terminate", True))
        timer.daemon = True
        timer.start()
        try:
            return self._session.run(self._results, feeds, options)
        finally:
            timer.cancel()

    def _require_shapes(self, results: Any, batch: int, steps: int) -> None:
        """Raise `ModelFailed` where results are not of the specified shapes.

        What a graph declares, it need not do; and numbers of another shape would be read as another session's.
        """
        for result, name, (at, shape) in zip(results, self._results, self._shapes, strict=True):
            expected = (*shape[:at], batch, *shape[at:]) if at is not None else (batch, steps, *shape)
            if result.shape != expected:
                raise ModelFailed(
                    f"model {self.ref.name} version {self.ref.version}: {name!r} came with the shape "
                    f"{result.shape}, specified is {expected}"
                )

    def seconds(self, batch: int, time: int) -> float:
        """See `Model.seconds`. Between the sizes that were measured, that of the next larger one; 0 before warm-up.

        A graph with a loop may take any time: infinity.
        """
        if self._loops:
            return math.inf
        if not self._seconds:
            return 0.0
        return self._seconds[min(bisect_left(self._sizes, batch), len(self._sizes) - 1)] * time

    def warm_up(self, max_batch: int) -> None:
        """Run every batch size once (a first run of a size is slow), and find out how long runs take.

        Raises `UnusableModel` where a run fails or a row's numbers depend on its neighbours.
        """
        for batch in range(1, max_batch + 1):
            self._trial(batch)
        self._require_rows_apart()
        self._sizes = sorted({min(2**i, max_batch) for i in range(max_batch.bit_length() + 1)})
        # The shortest of a few: the others were disturbed.
        self._seconds = [min(self._trial(size) for _ in range(_TRIALS)) for size in self._sizes]

    def _trial(self, batch: int) -> float:
        """Make a run of one timestep; return how long it took, in seconds."""
        x = np.ones((batch, 1, self.spec.width), np.float32)
        state = np.zeros((batch, self.spec.state_size), np.float32)
        started = time.perf_counter()
        self._tried(x, state)
        return time.perf_counter() - started

    def _require_rows_apart(self) -> None:
        """Raise `UnusableModel` where a row of NaN shows in the rows beside it, which would be other sessions."""
        x = np.ones((3, 2, self.spec.width), np.float32)
        state = np.zeros((3, self.spec.state_size), np.float32)
        alone = self._tried(x[1:2], state[1:2])
        x[0] = x[2] = np.nan
        state[0] = state[2] = np.nan
        together = self._tried(x, state)
        for one, all_ in zip(alone, together, strict=True):
            if not np.allclose(one[0], all_[1], rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True):
                raise UnusableModel("a row's answer depends on the rows beside it, which are other sessions'")

    def _tried(self, x: Floats, state: Floats) -> tuple[Floats, Floats]:
        try:
            return self.run(x, state)
        except ModelFailed as error:
            raise UnusableModel(
                f"a trial run with batch size {len(x)} and {x.shape[1]} timesteps failed: {error}"
            ) from error


def read(path: Path, max_bytes: int) -> bytes:
    """Return a file's bytes. Raises `UnusableModel` for more than `max_bytes`, and `OSError`."""
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise UnusableModel(f"the file has more than {max_bytes} bytes; CONVEYOR_MAX_MODEL_BYTES is the limit")
    return content


def _options() -> ort.SessionOptions:
    """One thread, no spinning: at these sizes a second thread costs more than it gives, above all in p99."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Or a file in another format would be read that nobody has looked into.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.log_severity_level = 4  # what is wrong is raised, and told once
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
