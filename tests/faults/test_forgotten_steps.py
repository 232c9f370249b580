"""Redis forgets acknowledged steps, as after a failover, and the client sends other timesteps under their numbers."""

import asyncio

import httpx
import redis as redis_client

from tests.servers import ConveyorServer, RedisServer
from tests.streaming_client import open_session, reading, stream_over_rest


def rows(number: int, first: int, last: int) -> list[list[float]]:
    return [reading(number, step) for step in range(first, last + 1)]


def test_a_replica_that_remembers_forgotten_steps_does_not_go_on_from_them() -> None:
    """The forgotten steps 3 and 4 and those sent in their place have the same numbers and the same epoch."""
    with RedisServer() as redis, redis_client.Redis.from_url(redis.url) as direct:
        with ConveyorServer(redis_url=redis.url) as one, ConveyorServer(redis_url=redis.url) as other:

            def sent(service: ConveyorServer, session_id: str, number: int, first: int, last: int) -> list[object]:
                streamed = stream_over_rest([service.url], session_id, rows(number, first, last), first)
                return [answer["outputs"] for answer in asyncio.run(streamed)]

            for session_id in ("forgotten", "quiet"):
                asyncio.run(open_session(one.url, session_id))
            sent(one, "forgotten", 1, 1, 2)
            (key,) = [key for key in direct.scan_iter() if key.endswith(b"forgotten")]
            stored = direct.get(key)
            sent(other, "forgotten", 1, 3, 4)
            direct.set(key, stored)
            with httpx.Client(base_url=other.url) as http:
                assert http.get("/v1/sessions/forgotten").json()["step"] == 2
            sent(one, "forgotten", 2, 3, 4)
            went_on = sent(other, "forgotten", 2, 5, 6)
            sent(one, "quiet", 1, 1, 2)
            assert went_on == sent(one, "quiet", 2, 3, 6)[2:]
