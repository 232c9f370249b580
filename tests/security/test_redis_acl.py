"""The service as the user of ``docker/redis/users.acl``: nothing that it needs is refused, nothing more is allowed."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.adapters.redis_store import RedisStore
from service.core.access import ANYBODY
from service.core.session import SessionKey
from tests.api.wire import readings, step, stream_at
from tests.e2e.command import conveyor
from tests.proxy import Proxy
from tests.servers import REPOSITORY, RULES, ConveyorServer, RedisServer, Server, redis_command, wait_until

COMMANDS = {rule[1:] for rule in RULES if rule.startswith("+")}
ELSEWHERE = {"wait", "role", "cluster|slots", "cluster|info", "asking"}
"""Allowed, and not used with a single server."""
LIMITED = {"rate_limit": 1e6, "max_sessions": 3}
"""Nothing is refused, but all is counted, and the place of the session that is deleted is needed again."""

ROWS = readings(6)
PASSWORD = "pa55word-of-the-test"


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer(appendonly="yes") as server:
        redis_command(server.url, "ACL", "SETUSER", "conveyor", "on", f">{PASSWORD}", *RULES)
        redis_command(server.url, "CONFIG", "RESETSTAT")
        redis_command(server.url, "ACL", "LOG", "RESET")
        yield server


def url_of(redis: RedisServer) -> str:
    return redis.url.replace("://", f"://conveyor:{PASSWORD}@")


def refused(redis: RedisServer) -> set[str]:
    """The commands, keys and users that Redis has refused."""
    return {entry["object"] for entry in redis_command(redis.url, "ACL", "LOG")}


def called(redis: RedisServer) -> set[str]:
    """The commands that were carried out, those of scripts too; of these tests' own, CONFIG and ACL."""
    statistics: dict[str, Any] = redis_command(redis.url, "INFO", "commandstats")
    return {name.removeprefix("cmdstat_").split("|")[0] for name in statistics} - {"acl", "config"}


def use_every_route(client: httpx.Client) -> set[tuple[str, str]]:
    """Ask every route of the API for something that it has; return the routes as OpenAPI names them."""
    asked: set[tuple[str, str]] = set()

    def ask(method: str, route: str, status: int = 200, *, name: str = "a", **options: Any) -> httpx.Response:
        path = route.format(session_id=name, name="hotspot", version="1")
        response = client.request(method, path, **options)
        assert response.status_code == status, response.text
        asked.add((method, route))
        return response

    ask("POST", "/v1/sessions", 201, json={"model": "hotspot", "session_id": "b", "history": ROWS})
    ask("PUT", "/v1/sessions/{session_id}", 201, json={"model": "hotspot"})
    ask("PUT", "/v1/sessions/{session_id}", 200, json={"model": "hotspot"})
    ask("POST", "/v1/sessions/{session_id}/steps", json={"x": ROWS[0], "step": 1})
    ask("POST", "/v1/steps", json={"steps": [{"session_id": "a", "x": ROWS[1]}, {"session_id": "b", "x": ROWS[1]}]})
    for route in ("/v1/sessions", "/v1/sessions/{session_id}", "/healthz", "/readyz", "/metrics"):
        ask("GET", route)
    for route in ("/v1/models", "/v1/models/{name}", "/v1/models/{name}/versions/{version}"):
        ask("GET", route)
    ask("POST", "/v1/sessions/{session_id}/fork", 201, json={"session_id": "c"})
    state = ask("GET", "/v1/sessions/{session_id}/state").content
    ask("PUT", "/v1/sessions/{session_id}/state", content=state)
    ask("POST", "/v1/sessions/{session_id}/reset")
    ask("POST", "/v1/tickets", 201)
    ask("DELETE", "/v1/sessions/{session_id}", 204, name="c")
    return asked


def use_both_sockets(service: ConveyorServer) -> None:
    ticket = httpx.post(f"{service.url}/v1/tickets", timeout=30).json()["ticket"]
    with stream_at(service, f"/v1/stream?ticket={ticket}") as admitted:
        assert "error" in admitted.ask({"session_id": "nobody's", "x": ROWS[0]})
    with stream_at(service, "/v1/sessions/s/stream?model=hotspot") as one, stream_at(service, "/v1/stream") as many:
        at = one.receive()["step"]
        assert one.ask({"x": ROWS[0], "step": at + 1})["step"] == at + 1
        assert many.ask({"session_id": "s", "x": ROWS[1]})["step"] == at + 2


def test_every_route_and_both_sockets_work_and_nothing_is_refused(redis: RedisServer) -> None:
    with (
        ConveyorServer(redis_url=url_of(redis), **LIMITED) as service,
        httpx.Client(base_url=service.url, timeout=30) as client,
    ):
        asked = use_every_route(client)
        use_both_sockets(service)
        redis_command(redis.url, "SCRIPT", "FLUSH")
        step(client, "a", ROWS[2])
        service.kill()
        service.start()
        use_both_sockets(service)
        redis.restart()
        redis_command(redis.url, "ACL", "SETUSER", "conveyor", "on", f">{PASSWORD}", *RULES)
        assert wait_until(lambda: client.get("/readyz").status_code == 200, 20)
        step(client, "a", ROWS[3])
        paths = client.get("/openapi.json").json()["paths"]
        assert conveyor("sessions", "list", redis_url=url_of(redis)).returncode == 0
        assert conveyor("sessions", "delete", "a", redis_url=url_of(redis)).returncode == 0
    assert refused(redis) == set()
    documented = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert documented - asked == set(), "a route that was not tried under the restricted user"


async def test_every_command_that_is_allowed_is_used(redis: RedisServer) -> None:
    with (
        ConveyorServer(redis_url=url_of(redis), **LIMITED) as service,
        httpx.Client(base_url=service.url, timeout=30) as client,
    ):
        use_every_route(client)
        use_both_sockets(service)
        redis_command(redis.url, "SCRIPT", "FLUSH")
        step(client, "a", ROWS[2])
        # Somebody else has written: the commit finds another record.
        with ConveyorServer(redis_url=url_of(redis)) as other, httpx.Client(base_url=other.url) as elsewhere:
            step(elsewhere, "a", ROWS[3])
            step(client, "a", ROWS[4])
    async with Proxy(redis.url) as proxy:
        store = RedisStore(proxy.url.replace("://", f"://conveyor:{PASSWORD}@"))
        await store.load([SessionKey(ANYBODY.tenant, "b")])
        proxy.once(b"DEL", "lose the reply")
        assert await store.delete(SessionKey(ANYBODY.tenant, "b"))
        await store.close()
    assert refused(redis) == set()
    assert COMMANDS - called(redis) == ELSEWHERE


@pytest.mark.parametrize(
    "command",
    [
        ("GET", "somebody:elses"),
        ("SET", "somebody:elses", "1"),
        ("EVAL", "return redis.call('GET', KEYS[1])", "1", "somebody:elses"),
        ("EVAL", "return redis.call('FLUSHALL')", "0"),
        ("EVAL", "return redis.call('KEYS', '*')", "0"),
        ("KEYS", "*"),
        ("FLUSHALL",),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
        ("CLIENT", "LIST"),
        ("MONITOR",),
        ("SHUTDOWN",),
        ("REPLICAOF", "127.0.0.1", "1"),
        ("MODULE", "LIST"),
        ("SCRIPT", "FLUSH"),
        ("PUBLISH", "conveyor:channel", "1"),
        ("RENAME", "conveyor:a", "conveyor:b"),
        ("DUMP", "conveyor:a"),
        ("MIGRATE", "127.0.0.1", "1", "conveyor:a", "0", "1"),
    ],
    ids=" ".join,
)
def test_what_the_service_does_not_do_its_user_may_not(redis: RedisServer, command: tuple[str, ...]) -> None:
    with pytest.raises(Exception, match=r"(?i)noperm|permission|can't (run|access)"):
        redis_command(url_of(redis), *command)


def test_a_user_who_may_do_too_little_is_not_told_that_its_password_is_wrong(redis: RedisServer) -> None:
    redis_command(redis.url, "ACL", "SETUSER", "conveyor", "-info")
    done = conveyor("sessions", "list", redis_url=url_of(redis))
    assert done.returncode == 1
    assert "does not allow the service's user all that docker/redis/users.acl lists" in done.stderr
    assert refused(redis) == {"info"}


class ComposeRedis(Server):
    """The compose file's Redis as its container starts it, on a free port and a folder of its own."""

    def __init__(self, password: str) -> None:
        super().__init__()
        self._redis = RedisServer()  # for its port and its binary
        self.port = self._redis.port
        self.password = password
        shutil.copytree(REPOSITORY / "docker/redis", self.folder / "redis")
        configuration = self.folder / "redis/redis.conf"
        configuration.write_text(configuration.read_text().replace("dir /data", f"dir {self.folder}"))

    def _command(self) -> list[str]:
        return ["sh", str(self.folder / "redis/start.sh"), "--bind", "127.0.0.1", "--port", str(self.port)]

    def _environment(self) -> dict[str, str]:
        path = f"{Path(self._redis.binary).parent}:{os.environ['PATH']}"
        return dict(os.environ) | {
            "PATH": path,
            "TMPDIR": str(self.folder),
            "REDIS_PASSWORD": self.password,
        }

    def is_ready(self) -> bool:
        return self._redis.is_ready()

    def close(self) -> None:
        super().close()
        self._redis.close()

    def url(self, user: str = "conveyor", password: str | None = None) -> str:
        return f"redis://{user}:{self.password if password is None else password}@127.0.0.1:{self.port}/0"


@pytest.mark.parametrize("password", [PASSWORD, ""], ids=["with a password", "without one"])
def test_the_compose_files_redis_serves_its_one_user(password: str) -> None:
    with ComposeRedis(password) as redis:
        with ConveyorServer(redis_url=redis.url()) as service, httpx.Client(base_url=service.url) as client:
            client.put("/v1/sessions/a", json={"model": "hotspot"}).raise_for_status()
            redis.signal(signal.SIGKILL)
            redis.wait()
            redis.start()
            assert wait_until(lambda: client.get("/readyz").status_code == 200, 20)
            assert step(client, "a", ROWS[0], step=1)["step"] == 1
        assert redis_command(redis.url(), "PING") is True
        for url in (f"redis://127.0.0.1:{redis.port}", *([redis.url(password="guessed")] if password else [])):
            with pytest.raises(Exception, match=r"(?i)already authenticated|invalid username-password"):
                redis_command(url, "PING")
        command_line = Path(f"/proc/{redis.pid}/cmdline").read_bytes().decode()
        said = redis.output()
    assert ("whoever reaches this Redis reaches the sessions" in said) == (password == "")
    if password:
        assert password not in said + command_line
