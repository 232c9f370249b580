"""What Redis says that a session takes which the service has opened and stepped."""

from collections.abc import Iterator

import redis as client

from bench import population
from bench.cores import divided
from bench.effort import Effort
from bench.goals import REDIS_BYTES
from bench.measure import measure
from bench.scenarios import CONVEYOR, Scenario
from bench.servers import Servers, conveyor, redis_server, temporary
from bench.summary import Reading

SESSIONS = 256
RECORD = "Record of a session"


def probe(effort: Effort) -> Iterator[tuple[int, Reading]]:
    scenario = Scenario("memory", "", "http", 1, sessions=SESSIONS)
    with temporary() as folder, divided() as core, redis_server(folder) as redis:
        with conveyor(redis, folder, core) as server:
            servers = Servers(redis, {CONVEYOR: server}, core)
            measure(scenario, CONVEYOR, servers, warm_up_s=0, seconds=0.2)
        with client.Redis.from_url(redis.url) as connection:
            keys = list(connection.scan_iter("conveyor:*", count=SESSIONS))
            sizes = [connection.memory_usage(key, samples=0) for key in keys]
            records = [connection.strlen(key) for key in keys]
    tensors = population.tensor_bytes()
    beyond = sum(sizes) / len(sizes) - tensors
    yield 1, Reading("Redis memory of a session beyond its tensors, MEMORY USAGE", "B", beyond, REDIS_BYTES)
    yield 1, Reading("Tensors of a session: state and last outputs", "B", tensors)
    yield 1, Reading(RECORD, "B", sum(records) / len(records))
