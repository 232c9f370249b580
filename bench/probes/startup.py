"""Start to ready: from starting the process to the first 200 of ``/readyz``, over a Redis that runs already.

Nothing else works meanwhile, so the service has all cores, as where it is started by a user; and once more one alone.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from bench.cores import divided
from bench.effort import Effort
from bench.goals import READY_S
from bench.servers import Redis, conveyor, redis_server, temporary
from bench.summary import Reading

TITLE = "Start to ready, demo model"


def probe(effort: Effort) -> Iterator[tuple[int, Reading]]:
    with temporary() as folder, redis_server(folder) as redis:
        for number in range(1, effort.rounds + 1):
            yield number, Reading(TITLE, "s", _seconds(redis, folder, set()), READY_S)
            with divided() as core:
                if core:
                    yield number, Reading(f"{TITLE}, on one core", "s", _seconds(redis, folder, core))


def _seconds(redis: Redis, folder: Path, core: set[int]) -> float:
    started = time.perf_counter()
    with conveyor(redis, folder, core):
        return time.perf_counter() - started
