"""Redis goes and comes back: steps are refused meanwhile, nothing advances, and the service heals by itself."""

import asyncio
import json

import httpx
import redis as redis_client
from websockets.sync.client import connect

from tests.proxy import Proxy
from tests.servers import ConveyorServer, RedisServer, wait_until
from tests.streaming_client import open_session, reading, stream_over_rest

STEPS = "/v1/sessions/pump/steps"


def test_steps_are_refused_while_redis_is_away_and_go_on_when_it_is_back() -> None:
    with RedisServer(appendonly="yes", appendfsync="always") as redis, ConveyorServer(redis_url=redis.url) as service:
        with httpx.Client(base_url=service.url, timeout=10) as http:
            asyncio.run(open_session(service.url, "pump"))
            assert http.post(STEPS, json={"x": reading(0, 1), "step": 1}).json()["step"] == 1
            redis.kill()
            for _ in range(3):
                refused = http.post(STEPS, json={"x": reading(0, 2), "step": 2})
                assert refused.status_code == 503
                assert refused.json()["code"] in ("store_unavailable", "outcome_unknown")
                assert refused.json()["retry_after_s"] > 0
                assert int(refused.headers["retry-after"]) > 0
            assert http.get("/readyz").status_code == 503
            assert http.get("/healthz").status_code == 200, "the process itself is well"
            redis.start()
            assert wait_until(lambda: http.get("/readyz").status_code == 200, 5)
            answer = http.post(STEPS, json={"x": reading(0, 2), "step": 2}).json()
            assert (answer["step"], answer["replayed"]) == (2, False)


def test_a_socket_is_told_and_stays_open() -> None:
    with RedisServer(appendonly="yes", appendfsync="always") as redis, ConveyorServer(redis_url=redis.url) as service:
        with connect(f"{service.ws_url}/v1/sessions/pump/stream?model=hotspot") as socket:
            socket.recv()
            redis.kill()
            socket.send(json.dumps({"x": reading(0, 1), "step": 1}))
            error = json.loads(socket.recv())["error"]
            assert (error["status"], error["retry_after_s"] > 0) == (503, True)
            redis.start()
            socket.send(json.dumps({"x": reading(0, 1), "step": 1}))
            assert json.loads(socket.recv())["step"] == 1


async def test_lost_replies_are_never_seen_by_a_client() -> None:
    """Every third commit loses its reply or its request on the way; the history is that of a quiet network."""
    rows = [reading(3, step) for step in range(60)]
    with RedisServer() as redis:
        async with Proxy(redis.url) as proxy:
            service = ConveyorServer(redis_url=proxy.url, store_timeout_s=1)
            try:
                await asyncio.to_thread(service.start)
                for session_id in ("quiet", "stormy"):
                    await open_session(service.url, session_id)
                quiet = await stream_over_rest([service.url], "quiet", rows)
                commits = 0

                def every_third(request: bytes) -> str:
                    nonlocal commits
                    commits += b"EVALSHA" in request
                    if b"EVALSHA" not in request or commits % 3:
                        return "pass"
                    return "lose the reply" if commits % 2 else "lose the request"

                proxy.fate = every_third
                stormy = await stream_over_rest([service.url], "stormy", rows)
            finally:
                await asyncio.to_thread(service.close)
    assert proxy.broken >= 20
    assert [answer["outputs"] for answer in stormy] == [answer["outputs"] for answer in quiet]
    assert not any(answer["replayed"] for answer in stormy), "the service resolved it without the client's help"


def test_a_redis_without_memory_refuses_and_keeps_what_it_has() -> None:
    with RedisServer() as redis, ConveyorServer(redis_url=redis.url) as service:
        with (
            httpx.Client(base_url=service.url, timeout=10) as http,
            redis_client.Redis.from_url(redis.admin_url) as direct,
        ):
            asyncio.run(open_session(service.url, "pump"))
            http.post(STEPS, json={"x": reading(0, 1), "step": 1}).raise_for_status()
            direct.config_set("maxmemory", 1)
            refused = http.post(STEPS, json={"x": reading(0, 2), "step": 2})
            assert (refused.status_code, refused.json()["code"]) == (503, "store_full")
            assert http.post("/v1/sessions", json={"model": "hotspot"}).json()["code"] == "store_full"
            direct.config_set("maxmemory", 0)
            answer = http.post(STEPS, json={"x": reading(0, 2), "step": 2}).json()
            assert (answer["step"], answer["replayed"]) == (2, False)
