"""A tenant that floods beside one that does not: ``python -m bench.fairness``.

Two tenants send steps to one engine over a real Redis, in one process: what is measured is whose turn it is, and no
wire. The modest one always sends the same; its neighbour sends little, then a share of what the engine carries, then
three times of it. Once more with both as one tenant, to see what the difference is.
"""

import asyncio
import random
import time
from contextlib import AsyncExitStack
from typing import Annotated, NamedTuple

import typer
import uvloop

from bench.load import percentile_ms
from bench.reference import MODEL, rows
from bench.servers import redis_server, temporary
from service.adapters.metrics import PrometheusObserver
from service.adapters.model_repository import ModelRepository
from service.adapters.redis_store import RedisStore
from service.core.errors import Overloaded
from service.core.session import SessionKey, Timestep
from service.engine import Engine
from service.sessions import Sessions

FLOODER, MODEST = "flooder", "modest"
SESSIONS = 2000
MODEST_SESSIONS = 50
MODEST_RATE = 200.0
WARM_UP_S = 1.0
"""A flood is a burst at first, see `service.core.admission`."""
TICK_S = 0.0005
PEAK_RATE = 100_000.0
"""More than any engine on one core carries."""


class Found(NamedTuple):
    """What became of one tenant's steps: how many were taken and refused a second, and how long those taken took."""

    taken_per_s: float
    refused_per_s: float
    p50_ms: float
    p99_ms: float


class Traffic:
    """A tenant's steps, a Poisson process. `whose` says under which tenant's name they are sent."""

    def __init__(self, engine: Engine, whose: str, name: str, sessions: int, rate: float) -> None:
        self._engine = engine
        self._keys = [SessionKey(whose, f"{name}-{i}") for i in range(sessions)]
        self._steps = [Timestep(row) for row in rows()]
        self._rate = rate
        self._latencies: list[int] = []
        self._refused = self._sent = 0
        self._counted_from = 0.0
        self._random = random.Random(3)

    async def run(self, seconds: float) -> Found:
        due = time.perf_counter()
        self._counted_from = started = due + WARM_UP_S
        while (now := time.perf_counter()) < started + seconds:
            while due <= now:
                self._send(due)
                due += self._random.expovariate(self._rate)
            await asyncio.sleep(TICK_S)
        await self._engine.settle()
        taken = sorted(self._latencies)
        return Found(
            len(taken) / seconds, self._refused / seconds, percentile_ms(taken, 0.5), percentile_ms(taken, 0.99)
        )

    def _send(self, due: float) -> None:
        self._sent += 1
        counts = due >= self._counted_from
        key = self._keys[self._sent % len(self._keys)]
        try:
            future = self._engine.submit(key, self._steps[self._sent % len(self._steps)])
        except Overloaded:
            self._refused += counts
            return
        if counts:
            future.add_done_callback(lambda _: self._latencies.append(int((time.perf_counter() - due) * 1e9)))


async def measure(seconds: float, rounds: int) -> None:
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(redis_server(stack.enter_context(temporary())))
        store = RedisStore(redis.url)
        stack.push_async_callback(store.close)
        models = ModelRepository.load(MODEL.parents[2], max_batch=256)
        engine = Engine(store, models, PrometheusObserver())
        stack.push_async_callback(engine.close)
        await _open(Sessions(store, models, engine, default_ttl_s=3600, max_ttl_s=3600, max_history=1))
        flood = await Traffic(engine, FLOODER, FLOODER, SESSIONS, PEAK_RATE).run(seconds)
        peak = flood.taken_per_s
        print(f"the engine carries {peak:,.0f} steps/s of one tenant, generator included")
        for _ in range(rounds):
            for title, share, whose in (
                ("alone", 0.0, MODEST),
                ("neighbour at 60 %", 0.6, MODEST),
                ("neighbour at three times", 3.0, MODEST),
                ("the same, as one tenant", 3.0, FLOODER),
            ):
                modest = Traffic(engine, whose, MODEST, MODEST_SESSIONS, MODEST_RATE)
                neighbour = Traffic(engine, FLOODER, FLOODER, SESSIONS, max(share * peak, 1.0))
                found, other = await asyncio.gather(modest.run(seconds), neighbour.run(seconds))
                print(
                    f"{title:26} modest: {found.taken_per_s:6.0f} taken/s {found.refused_per_s:6.0f} refused/s, "
                    f"p50 {found.p50_ms:6.1f} p99 {found.p99_ms:6.1f} ms; neighbour: {other.taken_per_s:7,.0f} taken/s "
                    f"{other.refused_per_s:7,.0f} refused/s, p99 {other.p99_ms:6.1f} ms"
                )


async def _open(sessions: Sessions) -> None:
    for whose, name, count in (
        (FLOODER, FLOODER, SESSIONS),
        (MODEST, MODEST, MODEST_SESSIONS),
        (FLOODER, MODEST, MODEST_SESSIONS),
    ):
        for i in range(count):
            await sessions.create(SessionKey(whose, f"{name}-{i}"), MODEL.parents[1].name)


def fairness(
    seconds: Annotated[float, typer.Option(help="How long each load lasts.")] = 3.0,
    rounds: Annotated[int, typer.Option(help="How often, in turns.")] = 3,
) -> None:
    """See what a tenant notices of another that floods."""
    uvloop.run(measure(seconds, rounds))


if __name__ == "__main__":
    typer.run(fairness)
