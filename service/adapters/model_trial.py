"""A model is first tried out in a process of its own, which may run out of memory, hang or crash without harm.

A graph can ask ONNX Runtime for any amount of memory and time, at load already, where what is constant is computed. The
process that this ends must not be the service. What that process does is in `run_trial`; nothing here needs ONNX
Runtime, so that trials can begin before it is imported.
"""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Self

from service.adapters.model_folder import candidates
from service.adapters.onnx_file import UnusableModel

UNUSABLE = 3
"""Status of a trial that says what is wrong."""
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV")
"""What the process is told of the environment: no address of a Redis, and no password."""
_ROOT = Path(__file__).parents[2]


class Trial(NamedTuple):
    """What a model has to do, and what it may use up: it is run with up to `max_batch` sessions, its file has
    `max_bytes` at most, its process `max_memory` bytes of address space, and that takes `seconds` at most."""

    max_batch: int
    max_bytes: int
    max_memory: int
    seconds: float

    def start(self, path: Path) -> subprocess.Popen[bytes]:
        """Begin to load a model and to warm it up, elsewhere."""
        program = [sys.executable, "-m", "service.adapters.run_trial"]
        command = [*program, str(os.getpid()), str(path.absolute()), *map(str, self)]
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_ROOT), environment.get("PYTHONPATH"))))
        return subprocess.Popen(  # noqa: S603  # nosec B603  # our own interpreter and module
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )

    def finish(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for the end of one that was started. Raises `UnusableModel` for all that went wrong there."""
        with process:
            try:
                said, _ = process.communicate(timeout=self.seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                raise UnusableModel(f"its trial took longer than {self.seconds:g} s, CONVEYOR_MODEL_TRIAL_S") from None
        if process.returncode == UNUSABLE:
            raise UnusableModel(said.decode(errors="replace").strip())
        if process.returncode:
            raise UnusableModel(
                f"its trial {_end_of(process.returncode)}, with at most {self.max_memory} bytes of memory, "
                "CONVEYOR_MODEL_TRIAL_BYTES"
            )


class Trials:
    """Trials of all models in a folder, `at_once` side by side, under way from when this is made.

    It is a context manager: with it end those that are still under way.
    """

    def __init__(self, folder: Path, trial: Trial, *, at_once: int) -> None:
        self.candidates = list(candidates(folder))
        self._trial = trial
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._ended = False
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="trial")
        self._results = {
            path: self._pool.submit(self._run, path) for path, complaint in self.candidates if complaint is None
        }

    def wait_for(self, path: Path) -> None:
        """Return when the model at `path`, of a candidate without complaint, has passed. Raises `UnusableModel`."""
        self._results[path].result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._ended = True
            for process in self._running:
                process.kill()
        self._pool.shutdown(cancel_futures=True)

    def _run(self, path: Path) -> None:
        with self._lock:
            if self._ended:
                raise UnusableModel("its trial did not begin: the process ends")
            process = self._trial.start(path)
            self._running.add(process)
        try:
            self._trial.finish(process)
        finally:
            with self._lock:
                self._running.discard(process)


def _end_of(status: int) -> str:
    return f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
