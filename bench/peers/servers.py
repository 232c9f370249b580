"""The peers, each as its own documentation starts it, on the core that Conveyor has in its turn."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.process import REPOSITORY, answering, free_port, process
from bench.reference import MODEL
from bench.servers import Redis, Server

HERE = REPOSITORY / "bench" / "peers"
TRITON = "triton"
LITSERVE = "litserve"


@contextmanager
def triton(environment: Path, folder: Path, core: set[int]) -> Iterator[Server]:
    """Run Triton from the wheel nvidia-pytriton: its HTTP endpoint, its Python backend, its sequence batcher.

    Raises RuntimeError where the wheel is not there or the server does not start.
    """
    python, installed = _installed(environment, "pytriton/tritonserver")
    backends = installed / "backends"
    stub = installed / "python_backend_stubs" / python.removeprefix("python") / "triton_python_backend_stub"
    if not stub.exists():
        found = ", ".join(sorted(path.name for path in stub.parents[1].iterdir()))
        raise RuntimeError(f"nvidia-pytriton has no stub for {python}; it has those of {found}")
    shutil.copy(stub, backends / "python" / stub.name)  # the backend looks for it beside itself, or takes its own
    version = folder / "models" / "hotspot" / "1"
    version.mkdir(parents=True)
    shutil.copy(HERE / "triton_model.py", version / "model.py")
    shutil.copy(HERE / "triton.pbtxt", version.parent / "config.pbtxt")
    port = free_port()
    command = [
        str(installed / "bin" / "tritonserver"),
        f"--model-repository={version.parents[1]}",
        f"--backend-directory={backends}",
        "--http-address=127.0.0.1",
        f"--http-port={port}",
        "--allow-grpc=false",
        "--allow-metrics=false",
    ]
    # The stub finds its packages by the python3 that is first on PATH.
    variables = {"PATH": f"{environment / 'bin'}:{os.environ['PATH']}", "BENCH_MODEL": str(MODEL)}
    with process(command, variables, folder / "triton.log", answering(port, "/v2/health/ready"), core) as pid:
        yield Server(TRITON, f"http://127.0.0.1:{port}", pid, opens=True, forecasts=True)


@contextmanager
def litserve(environment: Path, redis: Redis, folder: Path, core: set[int]) -> Iterator[Server]:
    """Run LitServe, one API server and one worker. Raises RuntimeError as `triton` does."""
    _installed(environment, "litserve")
    port = free_port()
    command = [str(environment / "bin" / "python"), str(HERE / "litserve_app.py"), str(port)]
    variables = {"BENCH_REDIS_URL": redis.url, "BENCH_MODEL": str(MODEL)}
    with process(command, variables, folder / "litserve.log", answering(port, "/health"), core) as pid:
        yield Server(LITSERVE, f"http://127.0.0.1:{port}", pid, opens=False, forecasts=True)


def _installed(environment: Path, package: str) -> tuple[str, Path]:
    """Return which Python an environment has ("python3.11"), and where a package of it lies."""
    for found in environment.absolute().glob(f"lib/python3*/site-packages/{package}"):
        return found.relative_to(environment.absolute()).parts[1], found
    raise RuntimeError(f"{environment} has no {package}: run make bench-peers, which installs it")
