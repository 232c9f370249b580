"""The same load on many live sessions and on a thousand, each in a Redis and a service of its own.

Every connection goes round a share of all sessions, in an order that is drawn anew for each round. Among a million, the
service remembers one session in fifty: nearly each step reads its session from Redis. Among a thousand, each is
remembered. So the ratio holds what the many cost, the reading included.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import msgspec
import redis as client

from bench import population
from bench.cores import divided
from bench.effort import Effort
from bench.goals import REDIS_BYTES
from bench.measure import measure
from bench.scenarios import CONVEYOR, Scenario
from bench.servers import Redis, Servers, conveyor, redis_server, temporary
from bench.summary import Outcome, Reading

FEW = 1000
PREFIX = "live"

# Redis would rewrite its append-only file in the middle of the measurement, because so much has just been written.
_NO_REWRITE = {"auto_aof_rewrite_percentage": "0"}


def scenario(sessions: int) -> Scenario:
    return Scenario(
        f"sessions-{sessions}",
        f"WS /v1/stream, 64 sockets, {sessions:,} sessions",
        "websocket",
        64,
        population=sessions,
    )


def probe(effort: Effort) -> Iterator[tuple[int, Outcome]]:
    yield from sweep((effort.population, FEW), effort.rounds, effort.warm_up_s, effort.seconds)


def sweep(counts: Sequence[int], rounds: int, warm_up_s: float, seconds: float) -> Iterator[tuple[int, Outcome]]:
    """Measure services with so many sessions each, interleaved; tell of Redis' memory at the most."""
    with ExitStack() as stack:
        core = stack.enter_context(divided())
        filled = []
        for sessions in counts:
            servers, used = _filled(sessions, core, stack)
            filled.append((scenario(sessions), servers))
            if sessions == max(counts):
                title = f"Redis memory of a session beyond its tensors, of {sessions:,}"
                yield 1, Reading(title, "B", used / sessions - population.tensor_bytes(), REDIS_BYTES)
        for number in range(1, rounds + 1):
            for each, servers in filled:
                drawn = msgspec.structs.replace(each, seed=number)
                found = measure(drawn, CONVEYOR, servers, warm_up_s=warm_up_s, seconds=seconds, prefix=PREFIX)
                yield number, found


def _filled(sessions: int, core: set[int], stack: ExitStack) -> tuple[Servers, float]:
    """Start a Redis and a service, and fill it; return also by how many bytes the memory that Redis uses grew."""
    folder = stack.enter_context(temporary())
    redis = stack.enter_context(redis_server(folder, **_NO_REWRITE))
    before = _used_memory(redis)
    population.fill(redis, PREFIX, sessions)
    used = _used_memory(redis) - before
    server = stack.enter_context(conveyor(redis, folder, core))
    return Servers(redis, {CONVEYOR: server}, core), used


def _used_memory(redis: Redis) -> int:
    with client.Redis.from_url(redis.url) as connection:
        return int(connection.info("memory")["used_memory"])
