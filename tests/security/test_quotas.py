"""Quotas at real services: a tenant's sessions on all processes together, and its sockets at each."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.api.wire import readings, require_problem, require_problem_body, step, stream, stream_at
from tests.e2e.command import conveyor
from tests.redis_clusters import cluster_deployment
from tests.security.credentials import ALL, KeyRing, bearer
from tests.servers import ConveyorServer, RedisServer, redis_command, wait_until

MODEL = {"model": "hotspot"}
SOON_S = 20


@pytest.fixture
def fresh() -> Iterator[RedisServer]:
    """A Redis of the test's own: its services know one tenant, or the same two."""
    with RedisServer() as server:
        yield server


@contextmanager
def client_of(redis_url: str, **settings: object) -> Iterator[httpx.Client]:
    with ConveyorServer(redis_url=redis_url, **settings) as service:
        with httpx.Client(base_url=service.url, timeout=30) as client:
            yield client


def open_(client: httpx.Client, name: str, **fields: object) -> httpx.Response:
    return client.put(f"/v1/sessions/{name}", json=MODEL | fields)


def require_full(response: httpx.Response, limit: int) -> None:
    require_problem(response, 409, "quota_exceeded", f"{limit} sessions are allowed", "delete some, or let them expire")
    assert response.json()["limit"] == limit
    assert "retry-after" not in response.headers


def test_every_route_that_makes_a_session_is_held_to_the_quota(fresh: RedisServer) -> None:
    with ConveyorServer(redis_url=fresh.url, max_sessions=2) as service:
        with httpx.Client(base_url=service.url, timeout=30) as client:
            assert [open_(client, name).status_code for name in "ab"] == [201, 201]
            state = client.get("/v1/sessions/a/state").content
            require_full(open_(client, "c"), 2)
            require_full(client.post("/v1/sessions", json=MODEL), 2)
            require_full(client.post("/v1/sessions/a/fork"), 2)
            require_full(client.put("/v1/sessions/c/state", content=state), 2)
            with stream(service, "c", "?model=hotspot") as socket:
                require_problem_body(socket.receive()["error"], 409, "quota_exceeded", "2 sessions are allowed")
                assert (end := socket.closed()).code == 1008
                assert end.reason == "quota_exceeded"
            assert client.get("/v1/sessions/c").status_code == 404
            assert step(client, "a", readings(1)[0], step=1)["step"] == 1
            assert open_(client, "a").status_code == 200
            assert client.put("/v1/sessions/b/state", content=state).status_code == 200
            assert client.delete("/v1/sessions/b").status_code == 204
            assert client.post("/v1/sessions/a/fork", json={"session_id": "c"}).status_code == 201
            require_full(open_(client, "b"), 2)
            assert conveyor("sessions", "delete", "a", redis_url=fresh.url).returncode == 0
            assert open_(client, "b").status_code == 201


def test_a_session_that_expired_makes_room_and_one_that_is_stepped_keeps_its_place(fresh: RedisServer) -> None:
    with client_of(fresh.url, max_sessions=2) as client:
        open_(client, "brief", ttl_s=2)
        open_(client, "going-on", ttl_s=4)
        require_full(open_(client, "c"), 2)
        deadline = time.monotonic() + SOON_S
        while (response := open_(client, "c")).status_code != 201:
            require_full(response, 2)
            assert time.monotonic() < deadline
            assert client.post("/v1/sessions/going-on/steps", json={"x": readings(1)[0]}).status_code == 200
            time.sleep(0.2)
        assert client.get("/v1/sessions/brief").status_code == 404
        for _ in range(20):
            assert client.post("/v1/sessions/going-on/steps", json={"x": readings(1)[0]}).status_code == 200
            require_full(open_(client, "d"), 2)
            time.sleep(0.3)


def test_two_processes_that_open_at_once_keep_one_quota(fresh: RedisServer) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(client_of(fresh.url, max_sessions=10)) for _ in range(2)]
        with ThreadPoolExecutor(8) as threads:
            for turn in range(3):
                opened = list(threads.map(lambda n, t=turn: open_(clients[n % 2], f"s{t}-{n}").status_code, range(40)))
                assert sorted(opened) == [201] * 10 + [409] * 30
                names = [each["session_id"] for each in clients[0].get("/v1/sessions").json()["sessions"]]
                assert len(names) == 10
                deleted = list(threads.map(lambda name: clients[1].delete(f"/v1/sessions/{name}").status_code, names))
                assert deleted == [204] * 10


def test_a_place_is_lost_for_a_while_at_most_where_redis_forgets_or_is_killed(fresh: RedisServer) -> None:
    with client_of(fresh.url, max_sessions=1) as client:
        open_(client, "a")
        redis_command(fresh.url, "FLUSHALL")
        assert open_(client, "b").status_code == 201
        require_full(open_(client, "c"), 1)
        fresh.kill()
        require_problem(open_(client, "c"), 503, "store_unavailable")
        fresh.start()
        assert wait_until(lambda: open_(client, "c").status_code == 201, SOON_S)
        require_full(open_(client, "d"), 1)


def test_tenants_have_each_their_own(fresh: RedisServer, tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "keys.json")
    keys = [ring.add(tenant, *ALL) for tenant in ("one", "two")]
    with client_of(fresh.url, api_keys=ring.path, max_sessions=1) as client:
        for key in keys:
            client.headers.update(bearer(key))
            assert open_(client, "a").status_code == 201
            require_full(open_(client, "b"), 1)
    assert sorted(redis_command(fresh.url, "KEYS", "conveyor:quota:*")) == [
        "conveyor:quota:{0}:one",
        "conveyor:quota:{0}:two",
    ]


def test_without_a_quota_nothing_is_counted(fresh: RedisServer) -> None:
    with client_of(fresh.url) as client:
        open_(client, "a")
        assert client.delete("/v1/sessions/a").status_code == 204
        called = redis_command(fresh.url, "INFO", "commandstats")
    assert not {f"cmdstat_{name}" for name in ("zadd", "zcard", "zscore", "zrem", "zrangebyscore")} & called.keys()


def test_no_step_asks_for_a_place(fresh: RedisServer) -> None:
    def counted() -> int:
        return int(redis_command(fresh.url, "INFO", "commandstats")["cmdstat_zadd"]["calls"])

    with client_of(fresh.url, max_sessions=2) as client:
        open_(client, "a")
        before = counted()
        for row in readings(20):
            step(client, "a", row)
        assert counted() == before == 2


def test_in_the_memory_of_a_process() -> None:
    with client_of("memory://", max_sessions=1) as client:
        assert open_(client, "a").status_code == 201
        require_full(open_(client, "b"), 1)
        client.delete("/v1/sessions/a")
        assert open_(client, "b").status_code == 201


def test_on_a_cluster() -> None:
    with cluster_deployment(replicas=False) as cluster, client_of(cluster.url, max_sessions=5) as client:
        assert [open_(client, f"s{n}").status_code for n in range(8)] == [201] * 5 + [409] * 3
        for n in range(5):
            assert client.delete(f"/v1/sessions/s{n}").status_code == 204
        assert [open_(client, f"t{n}").status_code for n in range(8)] == [201] * 5 + [409] * 3


def test_sockets_beyond_the_quota_are_closed_and_told_why(redis: RedisServer, tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "keys.json")
    mine, other = ({"additional_headers": bearer(ring.add(tenant, *ALL))} for tenant in ("mine", "other"))
    with ConveyorServer(redis_url=redis.url, api_keys=ring.path, max_sockets=2) as service, ExitStack() as stack:
        httpx.put(f"{service.url}/v1/sessions/s", json=MODEL, headers=mine["additional_headers"], timeout=20)
        first = stack.enter_context(stream_at(service, "/v1/stream", **mine))
        one = stack.enter_context(stream(service, "s", **mine))
        assert one.receive()["step"] == 0
        with stream_at(service, "/v1/stream", **mine) as third:
            require_problem_body(third.receive()["error"], 409, "quota_exceeded", "2 sockets are allowed", "/v1/stream")
            assert (end := third.closed()).code == 1008
            assert end.reason == "quota_exceeded"
        stack.enter_context(stream_at(service, "/v1/stream", **other))
        assert one.ask({"x": readings(1)[0]})["step"] == 1
        assert "error" in first.ask({"session_id": "nobody's", "x": readings(1)[0]})
        one.socket.close()

        def admitted() -> bool:
            with stream_at(service, "/v1/stream", **mine) as again:
                return "session_not_found" in str(again.ask({"session_id": "nobody's", "x": readings(1)[0]}))

        assert wait_until(admitted, SOON_S)


def test_a_socket_that_is_refused_or_cut_off_takes_no_place(redis: RedisServer) -> None:
    with ConveyorServer(redis_url=redis.url, max_sockets=1) as service:
        for _ in range(5):
            with stream(service, "never-opened") as refused:
                assert refused.receive()["error"]["code"] == "session_not_found"
                assert refused.closed().code == 4404
        with stream_at(service, "/v1/stream") as cut:
            cut.ask([])
            cut.socket.socket.close()

        def admitted() -> bool:
            with stream_at(service, "/v1/stream") as again:
                return again.ask([]) == []

        assert wait_until(admitted, SOON_S)
