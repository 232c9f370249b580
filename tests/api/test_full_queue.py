"""Refusals of plain steps, by a service whose queue is full for as long as a test likes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from service.core.access import Scope
from tests.api.plain_steps import answers_of_one_connection, plain_step
from tests.proxy import Proxy
from tests.security.credentials import ALL, KeyRing, bearer
from tests.servers import ConveyorServer, RedisServer
from tests.streaming_client import reading


@asynccontextmanager
async def full(
    redis: RedisServer, headers: dict[str, str] | None = None, **settings: object
) -> AsyncIterator[ConveyorServer]:
    """A service whose queue is full: a step of session "s" is being written to a Redis that is held, another waits."""
    async with Proxy(redis.url) as proxy:
        server = ConveyorServer(redis_url=proxy.url, max_queue=1, store_timeout_s=60, step_timeout_s=60, **settings)
        await asyncio.to_thread(server.start)
        try:
            async with httpx.AsyncClient(base_url=server.url, timeout=90, headers=headers) as http:
                assert (await http.put("/v1/sessions/s", json={"model": "hotspot"})).status_code in (200, 201)
                proxy.hold()
                posts = [
                    asyncio.create_task(http.post("/v1/sessions/s/steps", json={"x": reading(0, 0)})) for _ in "abc"
                ]
                (refused,), waiting = await asyncio.wait(posts, return_when=asyncio.FIRST_COMPLETED, timeout=30)
                assert refused.result().status_code == 429
                yield server
                proxy.release()
                assert {post.result().status_code for post in (await asyncio.wait(waiting))[0]} == {200}
        finally:
            proxy.release()
            await asyncio.to_thread(server.close)


async def test_a_refusal_on_the_short_way_is_not_held_back(redis: RedisServer) -> None:
    async with full(redis) as server:
        answers = await answers_of_one_connection(server, plain_step("s"), 50)
    assert {status.split()[1] for status, _ in answers} == {b"429"}
    # Held back, it would come with the next answer, or when the idle connection is closed after 5 s.
    assert max(after_s for _, after_s in answers) < 4


async def test_a_stranger_is_told_nothing_of_how_busy_a_service_is(redis: RedisServer, tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "keys.json")
    headers = bearer(ring.add("a", *ALL))
    async with full(redis, headers, api_keys=ring.path) as server:
        known = plain_step("s", f"Authorization: {headers['Authorization']}\r\n")
        stranger, client = await asyncio.gather(
            answers_of_one_connection(server, plain_step("s"), 50),
            answers_of_one_connection(server, known, 50),
        )
    assert {status.split()[1] for status, _ in stranger} == {b"401"}
    assert {status.split()[1] for status, _ in client} == {b"429"}


async def test_who_has_a_key_is_refused_on_the_short_way_too(redis: RedisServer, tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "keys.json")
    may, may_not = (bearer(ring.add("a", *scopes)) for scopes in (ALL, (Scope.METRICS,)))
    async with full(redis, may, api_keys=ring.path) as server:
        known, other = await asyncio.gather(
            *(
                answers_of_one_connection(server, plain_step("s", f"authorization: {who['Authorization']}\r\n"), 50)
                for who in (may, may_not)
            )
        )
    assert {status.split()[1] for status, _ in known} == {b"429"}
    assert {status.split()[1] for status, _ in other} == {b"403"}
