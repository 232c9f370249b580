"""The same load on many live sessions and on a thousand, each in a Redis and a service of its own.

Every connection goes round a share of all sessions, in an order that is drawn anew for each round. Among a million this
is measured twice: with a service that remembers one in a hundred, so that nearly each step reads its session from
Redis, and with one of default settings that has gone through all of them once. Among a thousand, each is remembered.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import redis as client

from bench import population
from bench.cores import divided
from bench.effort import Effort
from bench.goals import REDIS_BYTES
from bench.load import family, rss
from bench.measure import Measurement, measure
from bench.scenarios import CONVEYOR, Scenario
from bench.servers import Redis, Server, Servers, conveyor, redis_server, temporary
from bench.summary import Outcome, Reading

FEW = 1000
PREFIX = "live"
FORGETFUL_MIB = 16
"""Memory for some ten thousand sessions: more than a batch, so that what is read takes the usual way."""
_WARM_UP_TIMES = 3
"""So many times as long as elsewhere is the warm-up: memory that was left alone while others were measured has to be
mapped again (docs/decisions/0479)."""
READ = "-read"
"""Ends the names of scenarios that are measured while the many are read first."""

# Redis would rewrite its append-only file in the middle of the measurement, because so much has just been written.
_NO_REWRITE = {"auto_aof_rewrite_percentage": "0"}


def scenario(sessions: int, *, read: bool = False) -> Scenario:
    title = f"WS /v1/stream, 64 sockets, {sessions:,} sessions"
    if read:
        title += ", in turns with these" if sessions == FEW else ", each read from Redis first"
    return Scenario(f"sessions-{sessions}{READ * read}", title, "websocket", 64, population=sessions)


def probe(effort: Effort) -> Iterator[tuple[int, Outcome]]:
    many = effort.population
    with ExitStack() as stack:
        core = stack.enter_context(divided())
        folder, redis, used = _filled(many, stack)
        title = f"Redis memory of a session beyond its tensors, of {many:,}"
        yield 1, Reading(title, "B", used / many - population.tensor_bytes(), REDIS_BYTES)
        few_folder, few_redis, _ = _filled(FEW, stack)
        few = _servers(few_redis, stack.enter_context(conveyor(few_redis, few_folder, core)), core)
        with conveyor(redis, folder, core, cache_mib=FORGETFUL_MIB) as forgetful:
            turns = [(scenario(many, read=True), _servers(redis, forgetful, core)), (scenario(FEW, read=True), few)]
            yield from _in_turns(turns, effort.rounds, effort.warm_up_s, effort.population_s)
        with conveyor(redis, folder, core) as server:
            yield from ((1, reading) for reading in _gone_through(server, many))
            turns = [(scenario(many), _servers(redis, server, core)), (scenario(FEW), few)]
            yield from _in_turns(turns, effort.population_rounds, effort.warm_up_s, effort.population_s)


def sweep(counts: Sequence[int], rounds: int, warm_up_s: float, seconds: float) -> Iterator[tuple[int, Measurement]]:
    """Measure services with so many sessions each that have gone through them, interleaved."""
    with ExitStack() as stack:
        core = stack.enter_context(divided())
        turns = []
        for sessions in counts:
            folder, redis, _ = _filled(sessions, stack)
            server = stack.enter_context(conveyor(redis, folder, core))
            population.go_through(server, PREFIX, sessions)
            turns.append((scenario(sessions), _servers(redis, server, core)))
        yield from _in_turns(turns, rounds, warm_up_s, seconds)


def _in_turns(
    turns: Sequence[tuple[Scenario, Servers]], rounds: int, warm_up_s: float, seconds: float
) -> Iterator[tuple[int, Measurement]]:
    for number in range(1, rounds + 1):
        for each, servers in turns if number % 2 else reversed(turns):  # what drifts meanwhile favours neither
            drawn = msgspec.structs.replace(each, seed=number)
            found = measure(
                drawn, CONVEYOR, servers, warm_up_s=_WARM_UP_TIMES * warm_up_s, seconds=seconds, prefix=PREFIX
            )
            yield number, found


def _gone_through(server: Server, sessions: int) -> Iterator[Reading]:
    """Let the service take a step of each session, so that it remembers as many as it may."""
    before = rss(family(server.pid))
    sent = population.go_through(server, PREFIX, sessions)
    grown = rss(family(server.pid)) - before
    yield Reading(
        f"A step of each of {sessions:,} sessions, {population.IN_A_CALL} a call", "steps/s", sessions / sent.seconds
    )
    yield Reading(f"Service memory with {sessions:,} sessions remembered", "MiB", (before + grown) / 2**20)
    yield Reading("What it grew by for each of them", "B", grown / sessions)


def _filled(sessions: int, stack: ExitStack) -> tuple[Path, Redis, float]:
    """Start a Redis and fill it; return also its folder, and by how many bytes the memory that it uses grew."""
    folder = stack.enter_context(temporary())
    redis = stack.enter_context(redis_server(folder, **_NO_REWRITE))
    before = _used_memory(redis)
    population.fill(redis, PREFIX, sessions)
    return folder, redis, _used_memory(redis) - before


def _servers(redis: Redis, server: Server, core: set[int]) -> Servers:
    return Servers(redis, {CONVEYOR: server}, core)


def _used_memory(redis: Redis) -> int:
    with client.Redis.from_url(redis.url) as connection:
        return int(connection.info("memory")["used_memory"])
