"""Start to ready: from starting the process to the first 200 of ``/readyz``, over a Redis that runs already."""

import time
from collections.abc import Iterator

from bench.cores import divided
from bench.effort import Effort
from bench.goals import READY_S
from bench.servers import conveyor, redis_server, temporary
from bench.summary import Reading


def probe(effort: Effort) -> Iterator[tuple[int, Reading]]:
    with temporary() as folder, divided() as core, redis_server(folder) as redis:
        for number in range(1, effort.rounds + 1):
            started = time.perf_counter()
            with conveyor(redis, folder, core):
                seconds = time.perf_counter() - started
            yield number, Reading("Start to ready, demo model", "s", seconds, READY_S)
