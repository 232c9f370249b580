"""A small program that becomes another one, which then ends when its parent does.

``python run_with_parent.py <parent's pid> <lock descriptor> <program> [argument …]``

It is a program rather than a `preexec_fn` because the service has threads, and Python code between fork and exec in
a process with threads can deadlock. It imports nothing of the service and keeps its pid when it becomes `program`.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def end_with(parent: int, by: signal.Signals) -> None:
    """Arrange for a signal to this process when its parent, or the thread there that started it, ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, by)
        # The parent may have ended before the call above: then no signal will come.
        if os.getppid() != parent:
            sys.exit("the parent process has ended")


def main(parent: int, lock: int, command: list[str]) -> None:
    """Sign the inherited lock with the pid, arrange for SIGTERM at the parent's end, and become `command`."""
    end_with(parent, by=signal.SIGTERM)
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    os.execv(command[0], command)  # noqa: S606  # nosec B606


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
