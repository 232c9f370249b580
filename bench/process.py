"""Server processes: started, waited for, ended."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from bench.cores import give

REPOSITORY = Path(__file__).resolve().parent.parent
READY_S = 60
STOP_S = 15
POLL_S = 0.005

Ready = Callable[[], bool]


@contextmanager
def process(
    command: list[str], environment: Mapping[str, str], log: Path, ready: Ready, cores: set[int] | None = None
) -> Iterator[int]:
    """Run a server until the block ends; hand out its pid when it is ready. Raises RuntimeError where it never is."""
    outer = {key: value for key, value in os.environ.items() if not key.startswith("CONVEYOR_")}
    with log.open("wb") as output:
        started = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=outer | dict(environment),
            cwd=REPOSITORY,
            start_new_session=True,  # a group of its own, to be ended with all that it has started
        )
    give(started.pid, cores or set())
    try:
        _wait(started, ready, log)
        yield started.pid
    finally:
        started.terminate()
        try:
            started.wait(STOP_S)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)


def listening(path: Path) -> Ready:
    """Whether something accepts connections on a unix socket."""

    def ready() -> bool:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
            return True
        return False

    return ready


def answering(port: int, path: str) -> Ready:
    """Whether a request on a loopback port is answered with 200."""

    def ready() -> bool:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    return ready


def printed(log: Path, words: str) -> Ready:
    """Whether a server has printed something."""

    def ready() -> bool:
        return words in log.read_text(errors="replace")

    return ready


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(started: subprocess.Popen[bytes], ready: Ready, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and started.poll() is None:
        if ready():
            return
        time.sleep(POLL_S)
    raise RuntimeError(f"{log.stem} did not start; it printed:\n{log.read_text(errors='replace')}")
