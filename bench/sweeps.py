"""The sweeps of growth: one thing grows, everything else stays."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

import msgspec
import psutil

from bench.cores import divided
from bench.measure import Measurement, measure, measure_alone
from bench.probes import population, workers
from bench.scenarios import CONVEYOR, ENGINE, NAIVE, REDIS, Scenario, Wire
from bench.servers import Servers, conveyor, redis_server, running, temporary


class Point(msgspec.Struct, frozen=True):
    """A measurement of the line `series` at the size `x`, in one of the rounds."""

    series: str
    x: int
    measurement: Measurement


class Sweep(msgspec.Struct, frozen=True):
    """`x_label` is what grows."""

    name: str
    title: str
    x_label: str
    points: list[Point] = []


class Growth(msgspec.Struct, frozen=True):
    """A whole run."""

    command: str
    machine: dict[str, str]
    seconds: float
    sweeps: list[Sweep]
    failures: list[str]


class Sizes(NamedTuple):
    """How far the sweeps go, and how long each point is measured."""

    rounds: int
    warm_up_s: float
    seconds: float
    connections: tuple[int, ...]
    batches: tuple[int, ...]
    hidden: tuple[int, ...]
    sessions: tuple[int, ...]


FULL = Sizes(
    rounds=3,
    warm_up_s=0.3,
    seconds=1.0,
    connections=(1, 4, 16, 64, 256, 1024),
    batches=(1, 4, 16, 64, 256, 512, 1024),
    hidden=(64, 128, 256, 512),
    sessions=(1_000, 10_000, 100_000, 1_000_000),
)
QUICK = Sizes(1, 0.1, 0.3, (1, 16), (1, 64), (64, 128), (1_000, 10_000))

NAIVE_AT_MOST = 256
"""Connections. With a thousand, the naive service has not given its first answer when a round is over."""

_IN_FRAMES = "conveyor, frames of a WebSocket"
_WIRES: dict[Wire, str] = {"http": "REST", "websocket": "WebSocket"}


def over_connections(sizes: Sizes) -> Iterator[Point]:
    with running((CONVEYOR, NAIVE), patient=True) as servers:
        for _ in range(sizes.rounds):
            for count in sizes.connections:
                for wire, told in _WIRES.items():
                    scenario = Scenario(f"connections-{count}", "", wire, count)
                    for subject in (CONVEYOR, NAIVE) if count <= NAIVE_AT_MOST else (CONVEYOR,):
                        yield Point(f"{subject}, {told}", count, _measure(scenario, servers, sizes, subject))


def over_batch(sizes: Sizes) -> Iterator[Point]:
    """Sessions in a message; beside it the parts alone, where the message is one batch."""
    with running((CONVEYOR,), patient=True) as servers:
        for _ in range(sizes.rounds):
            for count in sizes.batches:
                # Two in flight: the service need not wait for the load generator.
                scenario = Scenario(f"batch-{count}", "", "websocket", 1, in_flight=2, sessions=count)
                yield Point(_IN_FRAMES, count, _measure(scenario, servers, sizes))
            for part in (ENGINE, REDIS):
                alone = measure_alone(
                    part, servers, warm_up_s=sizes.warm_up_s / 2, seconds=sizes.seconds / 2, batches=sizes.batches
                )
                for count, found in zip(sizes.batches, alone, strict=True):
                    yield Point(f"{part} alone", count, found)


def over_hidden(sizes: Sizes) -> Iterator[Point]:
    # torch takes seconds to import, and no other sweep needs it.
    from bench.widths import model_of

    with ExitStack() as stack:
        models = stack.enter_context(temporary())
        core = stack.enter_context(divided())
        redis = stack.enter_context(redis_server(stack.enter_context(temporary())))
        started = []
        for hidden in sizes.hidden:
            folder = stack.enter_context(temporary())
            server = stack.enter_context(conveyor(redis, folder, core, model=model_of(hidden, models), patient=True))
            started.append((hidden, Servers(redis, {CONVEYOR: server}, core)))
        for _ in range(sizes.rounds):
            for hidden, servers in started:
                scenario = Scenario(f"hidden-{hidden}", "", "websocket", 64, in_flight=8)
                yield Point("conveyor, 64 sockets, 8 in flight", hidden, _measure(scenario, servers, sizes))
                (alone,) = measure_alone(
                    ENGINE, servers, warm_up_s=sizes.warm_up_s, seconds=sizes.seconds / 2, batches=(64,)
                )
                yield Point("engine alone, batch of 64", hidden, alone)


def over_sessions(sizes: Sizes) -> Iterator[Point]:
    for _, found in population.sweep(sizes.sessions, sizes.rounds, sizes.warm_up_s, sizes.seconds):
        if isinstance(found, Measurement):
            yield Point("conveyor, 64 sockets", int(found.scenario.removeprefix("sessions-")), found)


def over_workers(sizes: Sizes) -> Iterator[Point]:
    counts = [count for count in (1, 2, 4, 8, 16, 32, 64) if count <= (psutil.cpu_count() or 1)]
    for _, found in workers.sweep(counts, sizes.rounds, sizes.warm_up_s, sizes.seconds):
        yield Point("conveyor, 64 sockets, undivided cores", int(found.scenario.removeprefix("workers-")), found)


def _measure(scenario: Scenario, servers: Servers, sizes: Sizes, subject: str = CONVEYOR) -> Measurement:
    return measure(scenario, subject, servers, warm_up_s=sizes.warm_up_s, seconds=sizes.seconds)


SWEEPS: dict[str, tuple[Sweep, Callable[[Sizes], Iterator[Point]]]] = {
    sweep.name: (sweep, measured)
    for sweep, measured in (
        (Sweep("connections", "Connections, one step in flight on each", "connections"), over_connections),
        (Sweep("batch", "Sessions in one message", "sessions in a message"), over_batch),
        (Sweep("hidden", "Hidden units, 2 layers", "hidden units in each of 2 layers"), over_hidden),
        (Sweep("sessions", "Live sessions, steps spread over all of them", "live sessions"), over_sessions),
        (Sweep("workers", "Workers", "workers"), over_workers),
    )
}
