"""Two workers on two cores over one. Everything shares the cores, the load generator and Redis too, in both cases."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import psutil

from bench.effort import Effort
from bench.measure import Measurement, measure
from bench.scenarios import CONVEYOR, Scenario
from bench.servers import Servers, conveyor, redis_server, temporary

COUNTS = (1, 2)


def probe(effort: Effort) -> Iterator[tuple[int, Measurement]]:
    if (psutil.cpu_count() or 1) < 2:
        raise RuntimeError("two workers on two cores need two cores")
    yield from sweep(COUNTS, effort.rounds, effort.warm_up_s, effort.seconds)


def sweep(counts: Sequence[int], rounds: int, warm_up_s: float, seconds: float) -> Iterator[tuple[int, Measurement]]:
    """Measure services of so many workers, interleaved."""
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(stack.enter_context(temporary())))
        started = []
        for count in counts:
            folder = stack.enter_context(temporary())
            server = stack.enter_context(conveyor(redis, folder, set(), workers=count))
            many = "1 worker" if count == 1 else f"{count} workers"
            scenario = Scenario(f"workers-{count}", f"WebSocket, 64 sockets, {many}, undivided cores", "websocket", 64)
            started.append((scenario, Servers(redis, {CONVEYOR: server}, set())))
        for number in range(1, rounds + 1):
            for scenario, servers in started:
                yield number, measure(scenario, CONVEYOR, servers, warm_up_s=warm_up_s, seconds=seconds)
