"""Rate limits of several processes: kept together in Redis, and by each alone where that is away."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from tests.api.wire import Stream, require_problem
from tests.security.callers import SELDOM, Caller, X
from tests.servers import ConveyorServer, RedisServer


@contextmanager
def limited(redis: RedisServer, rate: float, burst: int, **settings: object) -> Iterator[Caller]:
    """A service that anybody may ask, for so many timesteps."""
    with ConveyorServer(redis_url=redis.url, rate_limit=rate, rate_burst=burst, **settings) as service:
        caller = Caller(service, {})
        with caller.client:
            yield caller


def test_a_process_that_comes_later_knows_what_was_spent() -> None:
    with RedisServer() as redis:
        with limited(redis, SELDOM, 5) as caller:
            caller.open("pump")
            assert caller.step("pump", [X] * 4).status_code == 200
        with limited(redis, SELDOM, 5) as caller:
            assert caller.client.get("/v1/models").status_code == 200, "it learns of it with the first request"
            time.sleep(0.5)
            require_problem(caller.client.get("/v1/sessions/pump"), 429, "rate_limited")


def test_where_redis_was_away_the_limits_are_kept_and_settled_later() -> None:
    with RedisServer() as redis, limited(redis, SELDOM, 5, store_timeout_s=0.5) as caller:
        assert caller.client.get("/v1/models").status_code == 200
        redis.kill()
        assert caller.ask_until_refused() == 4
        redis.start()
        with limited(redis, SELDOM, 5) as other:
            other.client.get("/v1/models")
            time.sleep(1.5)
            assert other.ask_until_refused() == 0


def flood(caller: Caller, session_id: str, until: float) -> int:
    """Send steps without a pause; return how many were applied."""
    applied = 0
    with caller.socket(f"/v1/sessions/{session_id}/stream") as opened:
        opened.receive()
        while time.monotonic() < until:
            applied += _applied(opened)
    return applied


def _applied(opened: Stream, size: int = 10) -> int:
    opened.send(*({"x": X} for _ in range(size)))
    return sum("step" in opened.receive() for _ in range(size))


def test_two_processes_on_one_redis_keep_one_limit() -> None:
    rate, burst, seconds = 60, 30, 4.0
    with RedisServer() as redis, limited(redis, rate, burst) as one, limited(redis, rate, burst) as two:
        one.open("a", "b", "c", "d")
        time.sleep(1)
        began = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            floods = partial(flood, until=began + seconds)
            applied = sum(pool.map(floods, (one, two, one, two), "abcd"))
        took = time.monotonic() - began
    print(f"{applied} steps in {took:.2f} s at {rate}/s, burst {burst}, on two processes")
    assert applied <= 2 * (burst + rate * 0.1) + rate * took, "beyond the bound that docs/security.md states"
    assert applied >= 0.5 * rate * seconds, "less than half of what is allowed"
