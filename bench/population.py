"""Sessions that are there before the clock runs, made without the service: real records, set into Redis in bulk.

Their states are those of `DISTINCT` histories of `SEEDED_STEPS` timesteps, dealt out in turn.
"""

from collections.abc import Iterator, Sequence
from functools import cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.load import Sample
from bench.records import TTL_MS, record_of
from bench.reference import MODEL, outputs_of, require_equal, rows
from bench.resp import Link, pack
from bench.scenarios import Scenario
from bench.servers import Redis
from bench.traffic import Row, row_at, session_id, share
from service.adapters.onnx_model import OnnxModel
from service.adapters.redis_store import redis_key
from service.core.session import SessionKey

DISTINCT = 64
SEEDED_STEPS = 16
_SETS = 500
"""Commands in one write to the socket."""
_OK = b"+OK\r\n"


def fill(redis: Redis, prefix: str, count: int) -> None:
    """Set `count` sessions of the demo model, called `prefix` and a number. Raises RuntimeError where Redis refuses."""
    link = Link(redis.socket)
    owed = 0
    for part in _parts(prefix, count):
        link.send(b"".join(part))
        link.expect(_OK * owed)  # of the part before: Redis works on this one while the next is being made
        owed = len(part)
    link.expect(_OK * owed)
    link.close()


def _parts(prefix: str, count: int) -> Iterator[list[bytes]]:
    model, outputs, states = _seeds()
    forecasts = [row.tobytes() for row in outputs]
    held = [row.tobytes() for row in states]
    part = []
    for i in range(count):
        seed = i % DISTINCT
        key = redis_key(SessionKey("default", session_id(prefix, i))).encode()
        content = record_of(model, SEEDED_STEPS, held[seed], forecasts[seed])
        part.append(pack(b"SET", key, content, b"PX", TTL_MS))
        if len(part) == _SETS:
            yield part
            part = []
    yield part


def tensor_bytes() -> int:
    """Return the bytes of a session's state and of its last outputs."""
    spec = _seeds()[0].spec
    return 4 * (spec.state_size + spec.output_size)


def verify(scenario: Scenario, prefix: str, sent: Sequence[Row], samples: Sequence[Sample]) -> int:
    """Compare answers with the model's, run on from the seeded states; return how many were.

    A session is sent one and the same timestep at all times, so its answer follows from its step number. Raises
    RuntimeError on the first that differs.
    """
    model, _, states = _seeds()
    for sample in samples:
        sessions = share(scenario, sample.connection)
        session = sessions[sample.message % len(sessions)]
        times = msgspec.json.decode(sample.body, type=_Step).step - SEEDED_STEPS
        x = np.array([[row_at(sent, session, 0)] * times], np.float32)
        outputs, _ = model.run(x, states[session % DISTINCT][None])
        (found,) = outputs_of(scenario, sample.body)
        require_equal(found.reshape(-1), outputs[0, -1], f"step {times} of {session_id(prefix, session)}")
    return len(samples)


class _Step(msgspec.Struct):
    step: int


@cache
def _seeds() -> tuple[OnnxModel, NDArray[np.float32], NDArray[np.float32]]:
    """The model, and the last outputs and states of the histories."""
    model = OnnxModel.load(MODEL, MODEL.parents[1].name, MODEL.parent.name)
    sent = rows()
    x = np.array([[row_at(sent, seed, step) for step in range(SEEDED_STEPS)] for seed in range(DISTINCT)], np.float32)
    outputs, states = model.run(x, np.zeros((DISTINCT, model.spec.state_size), np.float32))
    return model, np.ascontiguousarray(outputs[:, -1]), states
