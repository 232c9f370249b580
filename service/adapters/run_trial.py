"""The process in which a model is tried out, see `model_trial`.

``python -m service.adapters.run_trial PARENT FILE MAX_BATCH MAX_BYTES MAX_MEMORY SECONDS``
"""

import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

from service.adapters.model_trial import UNUSABLE
from service.adapters.onnx_file import UnusableModel
from service.adapters.onnx_model import OnnxModel
from service.adapters.run_with_parent import end_with


def main(parent: str, path: str, max_batch: str, max_bytes: str, max_memory: str, seconds: str) -> None:
    """Try a model in this process, and end it; what is wrong is printed."""
    end_with(int(parent), by=signal.SIGKILL)
    for kind, limit in (
        (resource.RLIMIT_AS, int(max_memory)),
        (resource.RLIMIT_CPU, int(float(seconds)) + 1),  # for where nothing else would end it
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
        os._exit(UNUSABLE)
    except MemoryError:
        print(f"it needs more than {max_memory} bytes of memory, CONVEYOR_MODEL_TRIAL_BYTES", flush=True)
        os._exit(UNUSABLE)


if __name__ == "__main__":
    main(*sys.argv[1:])
