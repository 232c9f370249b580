"""The store's ceiling: the service's own commit script alone, without a client library.

Commands are packed before the clock runs. There are two, which undo one another: one takes every session of the batch
from step 1 to step 2, the other from 2 to 1. Two are in flight, so that Redis never waits for its client.
"""

import hashlib
from collections import deque
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from time import perf_counter_ns

import numpy as np

from bench.alone import AloneJob, measure_alone
from bench.records import TTL_MS, record_of
from bench.resp import Link, pack
from service.adapters.onnx_model import OnnxModel
from service.adapters.redis_store import redis_key
from service.core import packed, record
from service.core.session import SessionKey

EPOCH = 7
IN_FLIGHT = 2


def prepare(job: AloneJob, batch: int) -> Callable[[], int]:
    link = Link(Path(job.redis_socket))
    script = files("service.adapters").joinpath("lua", "commit.lua").read_bytes()
    digest = hashlib.sha1(script, usedforsecurity=False).hexdigest().encode()
    link.send(pack(b"SCRIPT", b"LOAD", script))
    link.expect(b"$40\r\n%b\r\n" % digest)
    keys = [redis_key(SessionKey("default", f"alone-{batch}-{i}")).encode() for i in range(batch)]
    at_one, at_two = _records(job, batch, 1), _records(job, batch, 2)
    for key, content in zip(keys, at_one, strict=True):
        link.send(pack(b"SET", key, content))
        link.expect(b"+OK\r\n")
    commit = _commit_split if job.split else _commit
    commands = deque([commit(digest, keys, at_one, at_two), commit(digest, keys, at_two, at_one)])
    written = b"*1\r\n:1\r\n" * batch if job.split else b"*%d\r\n" % batch + b":1\r\n" * batch
    sent: deque[int] = deque()

    def send() -> None:
        sent.append(perf_counter_ns())
        link.send(commands[0])
        commands.rotate()

    for _ in range(IN_FLIGHT):
        send()

    def call() -> int:
        link.expect(written)
        latency = perf_counter_ns() - sent.popleft()
        send()
        return latency

    return call


def _records(job: AloneJob, batch: int, step: int) -> list[bytes]:
    path = Path(job.model)
    model = OnnxModel.load(path, path.parents[1].name, path.parent.name)
    random = np.random.default_rng(step)

    def floats(count: int) -> bytes:
        return random.random(count, np.float32).tobytes()

    spec = model.spec
    return packed.pack(
        [record_of(model, step, floats(spec.state_size), floats(spec.output_size), EPOCH) for _ in range(batch)]
    )


def _commit(digest: bytes, keys: list[bytes], stored: list[bytes], records: list[bytes]) -> bytes:
    """Pack the call that puts `records` where `stored` are."""
    arguments: list[bytes] = []
    for old, new in zip(stored, records, strict=True):
        arguments += (old[record.VERSION_SLICE], new, TTL_MS)
    return pack(b"EVALSHA", digest, str(len(keys)).encode(), *keys, *arguments)


def _commit_split(digest: bytes, keys: list[bytes], stored: list[bytes], records: list[bytes]) -> bytes:
    each = zip(keys, stored, records, strict=True)
    return b"".join([_commit(digest, [key], [old], [new]) for key, old, new in each])


if __name__ == "__main__":
    measure_alone(prepare)
