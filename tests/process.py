"""A server process that a test starts, watches, kills and starts again."""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol, Self

REPOSITORY = Path(__file__).resolve().parent.parent


class ServerFailed(RuntimeError):
    """A server ended, or did not answer in time; the message carries what it printed."""


def free_port() -> int:
    """A loopback TCP port that nothing listens on at this moment.

    It is none that the system gives to an outgoing connection (Linux: those from 32768 on), so that a server which is
    started again finds its port as it left it. Nor is it one that tests beside these, in another process, get.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    mine = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = random.randrange(15_000 + mine, 32_000, processes)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(true: Callable[[], bool], timeout_s: float, every_s: float = 0.01) -> bool:
    """Whether `true()` became true within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True


def processes(that: Callable[[int], bool]) -> list[int]:
    """Return the processes of which something is true."""
    found = []
    for number in [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]:
        with suppress(OSError):  # it has ended meanwhile
            if that(number):
                found.append(number)
    return found


def redis_servers_in(folder: Path) -> list[int]:
    """Return the redis-servers that work in a folder."""
    return processes(lambda number: Path(f"/proc/{number}/cwd").resolve() == folder.resolve())


def members_of(group: int) -> list[int]:
    """Return what still runs in a process group; who has ended and was not yet waited for does not."""
    return processes(
        lambda number: (
            os.getpgid(number) == group
            and Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        )
    )


class Process(Protocol):
    """What is asked of a `subprocess.Popen`."""

    pid: int

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, number: signal.Signals, /) -> None: ...


class Server:
    """A process with a log and a folder of its own. Subclasses say what runs and how it is known to be ready."""

    ready_timeout_s = 20.0
    stop_timeout_s = 15.0

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="conveyor-test-")
        self.folder = Path(self._folder.name)
        self._log = self.folder / "output.log"
        self._output = ""
        self._process: Process | None = None

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    def _begin(self) -> Process:
        with self._log.open("ab") as log:
            # A session of its own: Ctrl-C in the terminal is for pytest, which then ends the server in order.
            return subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                cwd=REPOSITORY,
                start_new_session=True,
            )

    def is_ready(self) -> bool:
        """Whether it answers that it is ready, now."""
        raise NotImplementedError

    def start(self, *, wait: bool = True) -> Self:
        """Start the process; with `wait`, return when it is ready. Raises ServerFailed if it never is."""
        if self.running:
            raise ServerFailed("it is running already")
        self._process = self._begin()
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, timeout_s: float | None = None) -> None:
        """Return once it is ready. Raises ServerFailed, and ends the process, if it ends first or takes too long."""
        timeout_s = timeout_s or self.ready_timeout_s
        if wait_until(lambda: not self.running or self.is_ready(), timeout_s) and self.running:
            return
        status = "was not ready in time" if self.running else f"ended with status {self.returncode}"
        self.kill(group=True)
        raise ServerFailed(f"{type(self).__name__} {status}; it printed:\n{self.output()}")

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """The exit status of the last process, negative for a signal; None while it runs."""
        return self._process.poll() if self._process else None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone, not to its children: SIGSTOP makes it hang, SIGCONT wakes it."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self, *, group: bool = False) -> None:
        """SIGKILL the process, with `group` its children too, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(self.stop_timeout_s)
        if group:
            self._kill_group()

    def _kill_group(self) -> None:
        # The group is ours: the session of its own made this process its leader, and it takes the leader's number.
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM and return at once."""
        self.signal(signal.SIGTERM)

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for the end and return the exit status. Raises subprocess.TimeoutExpired."""
        assert self._process is not None, "not started"
        return self._process.wait(timeout_s or self.stop_timeout_s)

    def stop(self) -> None:
        """End it in order, by force after `stop_timeout_s`. The folder, and so the data, stays for another start."""
        if self._process is None:
            return
        self.terminate()
        try:
            self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
        self._kill_group()

    def restart(self) -> None:
        """Stop in order, then start on the same port and folder."""
        self.stop()
        self.start()

    def output(self) -> str:
        """All that its processes have printed so far."""
        if self._log.exists():
            self._output = self._log.read_text(errors="replace")
        return self._output

    def close(self) -> None:
        """Stop, and remove the folder."""
        self.stop()
        self.output()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_exc: object) -> None:
        self.close()
