"""The LSTM in LitServe: batched by the framework, each session's state read from Redis and written back.

As the naive baseline it promises nothing about steps that are sent twice or at once. Runs in the peers' environment.
"""

import os
import sys

import litserve
import numpy as np
import onnxruntime as ort
import redis

EXPIRY_S = 7 * 24 * 3600
STATE_SHAPE = (2, 2, 64)  # hidden and cell; layer, unit
NO_STATE = bytes(4 * 2 * 2 * 64)
MAX_BATCH = 64
BATCH_TIMEOUT_S = 0.001


class Forecasts(litserve.LitAPI):
    def setup(self, device):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.model = ort.InferenceSession(os.environ["BENCH_MODEL"], options)
        self.redis = redis.Redis.from_url(os.environ["BENCH_REDIS_URL"])

    def decode_request(self, request):
        return f"litserve:{request['session_id']}", request["x"]

    def batch(self, inputs):
        return inputs

    def predict(self, steps):
        keys = [key for key, _ in steps]
        x = np.array([[row] for _, row in steps], np.float32)
        stored = b"".join([state or NO_STATE for state in self.redis.mget(keys)])
        # To the model's order: what; layer, session, unit.
        states = np.frombuffer(stored, np.float32).reshape(len(keys), *STATE_SHAPE).transpose(1, 2, 0, 3)
        forecasts, hidden, cell = self.model.run(None, {"x": x, "hidden": states[0], "cell": states[1]})
        written = np.stack([hidden, cell]).transpose(2, 0, 1, 3)
        with self.redis.pipeline(transaction=False) as pipeline:
            for key, state in zip(keys, written, strict=True):
                pipeline.set(key, state.tobytes(), ex=EXPIRY_S)
            pipeline.execute()
        return forecasts[:, 0]

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return {"outputs": {"hot_spot": output.tolist()}}


if __name__ == "__main__":
    server = litserve.LitServer(
        Forecasts(max_batch_size=MAX_BATCH, batch_timeout=BATCH_TIMEOUT_S),
        accelerator="cpu",
        workers_per_device=1,
    )
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
