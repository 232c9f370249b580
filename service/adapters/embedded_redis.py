"""The default store: a private redis-server that starts and stops with the service, its data in a folder.

What lies in the folder::

    service.lock    held by the service that owns the folder, with its pid
    redis.lock      held by the redis-server itself, with its pid: when it is free, no server of this folder lives
    redis.sock      where the server listens; there is no TCP port
    redis.log       what the server printed since the last start
    appendonlydir/  the sessions (Redis 7 and newer), or appendonly.aof (Redis 6)

Both locks go with their holders, so nothing that a SIGKILL leaves behind has to be believed. A service that dies
takes its server with it (see `run_with_parent`); where it did not, the next start ends that server in order first.
"""

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL
from typing import Self
from urllib.parse import quote

from service.adapters import run_with_parent
from service.adapters.file_lock import FileLock
from service.adapters.redis_binary import why_unreadable
from service.adapters.redis_socket import ask, place_socket

log = logging.getLogger(__name__)

POLL_S = 0.002
RESTART_AFTER_S = 0.5


class EmbeddedRedisError(RuntimeError):
    """The private redis-server cannot be started; the message says why, and what to do."""


class FolderInUse(EmbeddedRedisError):
    """Another service owns the data folder."""


class EmbeddedRedis:
    """A redis-server of one service's own.

    Several processes may use its URL; one object, in the process that outlives the others, starts and stops it,
    once. A server that ends unasked is started again, with its data, for as long as the service runs.
    """

    def __init__(
        self,
        folder: Path,
        binary: Path,
        *,
        start_timeout_s: float = 60,
        stop_timeout_s: float = 10,
        appendfsync: str = "everysec",
    ) -> None:
        """`start_timeout_s` includes the loading of the sessions; `stop_timeout_s` is what a server gets to end."""
        self.folder = folder.absolute()
        self.binary = binary
        self._appendfsync = appendfsync
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._owner = FileLock(self.folder / "service.lock")
        self._socket = self.folder / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None
        self._failure: Exception | None = None
        self._ready = threading.Event()
        self._stopping = threading.Event()
        self._stop_lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self._socket))}"

    @property
    def description(self) -> str:
        return f"private redis-server ({self.binary}) in {self.folder}"

    def start(self) -> str:
        """Own the folder, start the server, and return its URL when the sessions are loaded.

        Raises FolderInUse, or EmbeddedRedisError where the folder cannot be used, or holds what this redis-server
        would not load, or where the server does not start; nothing is left running then. May block for seconds.
        """
        self._own_folder()
        try:
            if reason := why_unreadable(self.folder, self.binary):
                raise EmbeddedRedisError(reason)
            self._socket = place_socket(self.folder)
            (self.folder / "redis.log").write_bytes(b"")
            self._keeper = threading.Thread(target=self._keep, name="redis-keeper", daemon=True)
            self._keeper.start()
            self._await_ready()
        except (OSError, ValueError) as error:
            self.stop()
            raise EmbeddedRedisError(f"cannot start {self.description}: {error}") from error
        except BaseException:
            self.stop()
            raise
        return self.url

    def stop(self) -> None:
        """End the server, which writes all it has to disk first, and give the folder back. Does nothing twice.

        Another thread's `start` that is under way gives up, and so comes here too.
        """
        self._stopping.set()
        with self._stop_lock:
            deadline = time.monotonic() + self._stop_timeout_s
            while self._keeper and self._keeper.is_alive():
                ask(self._socket, b"SHUTDOWN")
                self._keeper.join(0.01)
                if self._process and time.monotonic() > deadline:
                    log.error("%s does not end, and is killed", self.description)
                    self._process.kill()
                    self._keeper.join(self._stop_timeout_s)
            if self._socket.parent != self.folder:
                with suppress(OSError):
                    self._socket.parent.rmdir()
            self._owner.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def _own_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            owned = self._owner.acquire()
        except OSError as error:
            raise EmbeddedRedisError(
                f"the data folder {self.folder} cannot be written ({error.strerror}). Set CONVEYOR_DATA_DIR to a "
                f"folder that this user may write, or CONVEYOR_REDIS_URL to a Redis."
            ) from error
        if not owned:
            raise FolderInUse(
                f"the data folder {self.folder} belongs to another running service: {self._owner.holder()}. Stop it, "
                f"or set CONVEYOR_DATA_DIR to another folder; to share sessions, give both one CONVEYOR_REDIS_URL."
            )
        self._owner.sign(f"pid {os.getpid()} on {socket.gethostname()}")

    def _keep(self) -> None:
        """Run the server, and run it again when it ends unasked: the keeper's thread.

        The thread lives as long as the server does, for the kernel sends the parent's death signal when the thread
        that made the child ends, be it one of a pool.
        """
        try:
            while not self._stopping.is_set():
                self._process = self._spawn()
                status = self._process.wait()
                if self._stopping.is_set():
                    return
                if not self._ready.is_set():
                    raise EmbeddedRedisError(f"{self.description} ended with status {status}: {self._last_words()}")
                log.error("redis-server ended with status %s and is started again: %s", status, self._last_words())
                self._stopping.wait(RESTART_AFTER_S)
        except (OSError, EmbeddedRedisError) as error:
            self._failure = error
            if self._ready.is_set():
                log.error("%s is not running any more: %s", self.description, error)

    def _spawn(self) -> subprocess.Popen[bytes]:
        """Start a server that holds the lock `redis.lock` for as long as it, or a child that writes for it, lives."""
        lock = self._await_predecessor()
        launcher = [sys.executable, "-I", "-S", run_with_parent.__file__, str(os.getpid()), str(lock.descriptor)]
        try:
            with (self.folder / "redis.log").open("ab") as output:
                return subprocess.Popen(  # noqa: S603  # nosec B603
                    [*launcher, str(self.binary), *self._options()],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=[lock.descriptor],
                    # Ctrl-C in the terminal is for the service, which ends its server after the last step.
                    start_new_session=True,
                )
        finally:
            lock.close()

    def _options(self) -> list[str]:
        options = {
            "dir": str(self.folder),
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": self._appendfsync,
            "aof-load-truncated": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",
            "hz": "100",  # sessions that expire by the million are forgotten in short turns
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def _await_predecessor(self) -> FileLock:
        """The server's lock, once the server that a killed service left behind, if any, has ended.

        It is asked to shut down, so that it writes what it has acknowledged; only if it hangs it is killed. Raises
        EmbeddedRedisError if it is still there.
        """
        lock = FileLock(self.folder / "redis.lock")
        deadline = time.monotonic() + self._stop_timeout_s
        killed = False
        while not lock.acquire():
            self._check_wanted()
            ask(self._socket, b"SHUTDOWN")
            time.sleep(POLL_S)
            if time.monotonic() < deadline:
                continue
            if killed or not is_redis_of(self.folder, lock.holder()):
                raise EmbeddedRedisError(
                    f"a redis-server of an earlier run (pid {lock.holder()}) still uses {self.folder} and does not "
                    f"answer. End it, then start again."
                )
            log.error("the redis-server of an earlier run (pid %s) hangs: it is killed", lock.holder())
            os.kill(int(lock.holder()), SIGKILL)
            killed, deadline = True, time.monotonic() + self._stop_timeout_s
        return lock

    def _await_ready(self) -> None:
        deadline = time.monotonic() + self._start_timeout_s
        # Without a process of ours, who answers is the predecessor.
        while not (self._process and ask(self._socket, b"PING").startswith(b"+PONG")):
            self._check_wanted()
            if self._failure:
                raise self._failure
            if time.monotonic() > deadline:
                waited = f"{self._start_timeout_s:.0f} s"
                raise EmbeddedRedisError(f"{self.description} is not ready after {waited}: {self._last_words()}")
            time.sleep(POLL_S)
        self._ready.set()

    def _check_wanted(self) -> None:
        if self._stopping.is_set():
            raise EmbeddedRedisError(f"{self.description} was stopped while it started")

    def _last_words(self) -> str:
        lines = (self.folder / "redis.log").read_text(errors="replace").splitlines()
        return "\n".join(["its log ends with", *(f"  {line}" for line in lines[-12:])])


def is_redis_of(folder: Path, pid: str) -> bool:
    """Whether the process is a redis-server that works in `folder`; False where the system does not tell."""
    process = Path("/proc", pid or "none")
    with suppress(OSError):
        name = (process / "comm").read_text().strip()
        return name in {"redis-server", "valkey-server"} and (process / "cwd").samefile(folder)
    return False
