"""The model's ceiling: ONNX Runtime alone, one thread, one timestep of a whole batch at a time, states fed back."""

from collections.abc import Callable
from time import perf_counter_ns

import numpy as np
import onnxruntime as ort

from bench.alone import AloneJob, measure_alone


def prepare(job: AloneJob, batch: int) -> Callable[[], int]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    model = ort.InferenceSession(job.model, options)
    x, *states = model.get_inputs()
    width = x.shape[-1]
    feeds = {x.name: np.random.default_rng(0).random((batch, 1, width), np.float32)}
    for state in states:
        feeds[state.name] = np.zeros([n if isinstance(n, int) else batch for n in state.shape], np.float32)
    names = [state.name for state in states]

    def call() -> int:
        started = perf_counter_ns()
        results = model.run(None, feeds)
        feeds.update(zip(names, results[-len(names) :], strict=True))
        return perf_counter_ns() - started

    return call


if __name__ == "__main__":
    measure_alone(prepare)
