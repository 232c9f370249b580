"""The LSTM in Triton's Python backend: states in the backend's memory, one ONNX Runtime run per batch.

Triton loads this file, with the peers' own environment. A request that starts a sequence only sets it to before its
first timestep, as opening a session does.
"""

import os

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, arguments):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.model = ort.InferenceSession(os.environ["BENCH_MODEL"], options)
        self.states = {}

    def execute(self, requests):
        outputs = np.zeros((len(requests), 24, 3), np.float32)
        stepped, sequences, x = [], [], []
        for place, request in enumerate(requests):
            sequence = int(_tensor(request, "CORRID").item())
            if _tensor(request, "START").item():
                self.states[sequence] = np.zeros((2, 2, 64), np.float32)
            else:
                stepped.append(place)
                sequences.append(sequence)
                x.append(_tensor(request, "x"))
        if stepped:
            outputs[stepped] = self.step(sequences, np.stack(x))
        return [triton.InferenceResponse([triton.Tensor("hot_spot", row[None])]) for row in outputs]

    def step(self, sequences, x):
        states = np.stack([self.states[sequence] for sequence in sequences], axis=2)  # what, layer, sequence, unit
        forecasts, hidden, cell = self.model.run(None, {"x": x, "hidden": states[0], "cell": states[1]})
        for place, sequence in enumerate(sequences):
            self.states[sequence] = np.stack([hidden[:, place], cell[:, place]])
        return forecasts[:, 0]


def _tensor(request, name):
    return triton.get_input_tensor_by_name(request, name).as_numpy()
