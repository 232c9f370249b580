"""Two workers on two cores over one. Everything shares the cores, the load generator and Redis too, in both cases."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import psutil

from bench.effort import Effort
from bench.load import cpu_seconds, family
from bench.measure import Measurement, measure
from bench.scenarios import CONVEYOR, Scenario
from bench.servers import Servers, conveyor, redis_server, temporary

COUNTS = (1, 2)
SETTLE_S = 30
_LOOK_S = 0.3
_IDLE = 0.05
"""Share of a core below which processes have nothing left to start."""


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
            _settle(server.pid)
            many = "1 worker" if count == 1 else f"{count} workers"
            scenario = Scenario(f"workers-{count}", f"WebSocket, 64 sockets, {many}, undivided cores", "websocket", 64)
            started.append((scenario, Servers(redis, {CONVEYOR: server}, set())))
        for number in range(1, rounds + 1):
            for scenario, servers in started:
                yield number, measure(scenario, CONVEYOR, servers, warm_up_s=warm_up_s, seconds=seconds)


def _settle(pid: int) -> None:
    """Wait until a server and its children have nothing left to do: the first worker that is ready answers for all."""
    deadline = time.monotonic() + SETTLE_S
    while time.monotonic() < deadline:
        group = {"all": family(pid)}
        before = cpu_seconds(group)["all"]
        time.sleep(_LOOK_S)
        if cpu_seconds(group)["all"] - before < _IDLE * _LOOK_S:
            return
    raise RuntimeError(f"the workers were still busy {SETTLE_S} s after the first was ready")
