"""A model file in ONNX Runtime, with the session options that the service runs it with."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from model_export.errors import InputError
from service.core.spec import SPEC_KEY, ModelSpec, SpecError

Array = NDArray[np.float32]


class StreamingModel:
    """An open model file: `spec`, and `run`, which takes states and gives the next ones."""

    def __init__(self, path: Path) -> None:
        """Raises `InputError` when the file is missing, is no ONNX graph, or carries no readable ModelSpec."""
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise InputError(f"{path}: ONNX Runtime cannot open it: {str(error).splitlines()[0]}") from error
        metadata = self.session.get_modelmeta().custom_metadata_map
        if SPEC_KEY not in metadata:
            raise InputError(f"{path}: its metadata has no {SPEC_KEY!r}; it was not written by export_streaming")
        try:
            self.spec = ModelSpec.from_json(metadata[SPEC_KEY])
        except SpecError as error:
            raise InputError(f"{path}: {SPEC_KEY}: {error}") from error
        self._tensors = [output.tensor for output in self.spec.outputs] + [state.output for state in self.spec.states]

    def zero_states(self, batch: int) -> list[Array]:
        """States at the start of `batch` sessions, in the order of ``spec.states``."""
        return [np.zeros(self.state_shape(index, batch), np.float32) for index in range(len(self.spec.states))]

    def state_shape(self, index: int, batch: int) -> tuple[int, ...]:
        state = self.spec.states[index]
        return (*state.shape[: state.batch_axis], batch, *state.shape[state.batch_axis :])

    def run(self, x: Array, states: list[Array]) -> tuple[list[Array], list[Array]]:
        """Outputs (batch, time, …) in the order of ``spec.outputs``, and the next states.

        `x` is (batch, time, features) in raw units. The batch is at least 1: ONNX Runtime aborts the process on an
        empty one.
        """
        names = [state.input for state in self.spec.states]
        found = self.session.run(self._tensors, {self.spec.input: x, **dict(zip(names, states, strict=True))})
        return found[: len(self.spec.outputs)], found[len(self.spec.outputs) :]
