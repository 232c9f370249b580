"""Sessions that are there before the clock runs, made without the service: real records, set into Redis in bulk.

Their states are those of `DISTINCT` histories of `SEEDED_STEPS` timesteps, dealt out in turn.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.encodings import ENCODINGS
from bench.load import Sample
from bench.once import Sent, send_once
from bench.records import TTL_MS, record_of
from bench.reference import MODEL, outputs_of, require_equal, rows
from bench.resp import Link, pack
from bench.scenarios import Scenario
from bench.servers import Redis, Server
from bench.traffic import Row, request, row_at, session_id, share
from service.adapters.onnx_model import OnnxModel
from service.adapters.redis_store import redis_key
from service.core import packed
from service.core.access import ANYBODY
from service.core.session import SessionKey

DISTINCT = 64
SEEDED_STEPS = 16
_AT_ONCE = 500
"""Commands in one write to the socket."""
IN_A_CALL = 1024
"""Steps in a call to the service. In calls of 256, two of them under way, they take a sixth longer."""
_ERROR = msgspec.msgpack.encode("error")
_OK = b"+OK\r\n"
_THERE = b":1\r\n"


def fill(redis: Redis, prefix: str, count: int, tenant: str = ANYBODY.tenant) -> None:
    """Set `count` sessions of the demo model, called `prefix` and a number. Raises RuntimeError where Redis refuses."""
    _send(redis, _parts(prefix, count, tenant), _OK)


def expire(redis: Redis, prefix: str, count: int, due_ms: int, spread_ms: int) -> None:
    """Let sessions that `fill` has set end between a Unix time in milliseconds and so much later."""

    def due(i: int) -> bytes:
        return pack(b"PEXPIREAT", _key(ANYBODY.tenant, prefix, i), b"%d" % (due_ms + spread_ms * i // count))

    _send(redis, ([due(i) for i in some] for some in _ranges(count)), _THERE)


def _send(redis: Redis, parts: Iterable[list[bytes]], reply: bytes) -> None:
    """Send commands, each of which has to be answered with `reply`."""
    link = Link(redis.socket)
    owed = 0
    for part in parts:
        link.send(b"".join(part))
        link.expect(reply * owed)  # of the part before: Redis works on this one while the next is being made
        owed = len(part)
    link.expect(reply * owed)
    link.close()


def _ranges(count: int) -> Iterator[range]:
    return (range(first, min(first + _AT_ONCE, count)) for first in range(0, count, _AT_ONCE))


def _key(tenant: str, prefix: str, index: int) -> bytes:
    return redis_key(SessionKey(tenant, session_id(prefix, index))).encode()


def _parts(prefix: str, count: int, tenant: str) -> Iterator[list[bytes]]:
    model, outputs, states = _seeds()
    forecasts = [row.tobytes() for row in outputs]
    held = [row.tobytes() for row in states]

    def sets(some: range) -> list[bytes]:
        records = [record_of(model, SEEDED_STEPS, held[i % DISTINCT], forecasts[i % DISTINCT]) for i in some]
        values = zip(some, packed.pack(records), strict=True)
        return [pack(b"SET", _key(tenant, prefix, i), value, b"PX", TTL_MS) for i, value in values]

    return map(sets, _ranges(count))


def go_through(server: Server, prefix: str, count: int) -> Sent:
    """Let the service take a step of each session that `fill` has set. Raises RuntimeError where one is refused."""
    return asyncio.run(send_once(server.url, _calls(prefix, count), 1, 200, _ERROR))


def _calls(prefix: str, count: int) -> Iterator[bytes]:
    encoding = ENCODINGS["msgpack"]
    sent = [encoding.timestep(row) for row in rows()]
    for first in range(0, count, IN_A_CALL):
        some = range(first, min(first + IN_A_CALL, count))
        steps = [{"session_id": session_id(prefix, i), "x": row_at(sent, i, 0)} for i in some]
        yield request("/v1/steps", encoding.encode({"steps": steps}), encoding.media_type)


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
