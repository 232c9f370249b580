"""A model is first tried out in a process of its own, which may run out of memory, hang or crash without harm.

A graph can ask ONNX Runtime for any amount of memory and time, at load already, where what is constant is computed. The
process that this ends must not be the service.

``python -m service.adapters.model_trial FILE MAX_BATCH MAX_BYTES MAX_MEMORY SECONDS`` is that process.
"""

import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from service.adapters.onnx_model import OnnxModel, UnusableModel

_UNUSABLE = 3
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV")
"""What the process is told of the environment: no address of a Redis, and no password."""
_ROOT = Path(__file__).parents[2]


class Trial(NamedTuple):
    """What a model may use up in its trial: bytes of address space, and seconds. So many go on `at_once` at most."""

    max_memory: int
    seconds: float
    at_once: int = 1

    def run(self, path: Path, *, max_batch: int, max_bytes: int) -> None:
        """Load a model and warm it up, elsewhere. Raises `UnusableModel` for all that goes wrong there."""
        numbers = (max_batch, max_bytes, self.max_memory, self.seconds)
        command = [sys.executable, "-m", __spec__.name, str(path.absolute()), *map(str, numbers)]
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_ROOT), environment.get("PYTHONPATH"))))
        try:
            done = subprocess.run(  # noqa: S603  # nosec B603  # our own interpreter and module
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self.seconds,
                env=environment,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise UnusableModel(f"its trial took longer than {self.seconds:g} s, CONVEYOR_MODEL_TRIAL_S") from None
        if done.returncode == _UNUSABLE:
            raise UnusableModel(done.stdout.decode(errors="replace").strip())
        if done.returncode:
            raise UnusableModel(
                f"its trial {_end_of(done.returncode)}, with at most {self.max_memory} bytes of memory, "
                "CONVEYOR_MODEL_TRIAL_BYTES"
            )


def _end_of(status: int) -> str:
    return f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def main(path: str, max_batch: str, max_bytes: str, max_memory: str, seconds: str) -> None:
    """Try a model in this process, and end it; what is wrong is printed."""
    for kind, limit in (
        (resource.RLIMIT_AS, int(max_memory)),
        (resource.RLIMIT_CPU, int(float(seconds)) + 1),  # for when nobody is left who would end it
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    # Where a container runs out of memory before that, Linux is to end this process, not the service.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    file = Path(path)
    try:
        OnnxModel.load(file, *file.parts[-3:-1], max_bytes=int(max_bytes)).warm_up(int(max_batch))
    except (UnusableModel, OSError) as error:
        print(error, flush=True)
        os._exit(_UNUSABLE)
    except MemoryError:
        print(f"it needs more than {max_memory} bytes of memory, CONVEYOR_MODEL_TRIAL_BYTES", flush=True)
        os._exit(_UNUSABLE)


if __name__ == "__main__":
    main(*sys.argv[1:])
