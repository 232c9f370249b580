"""The service's command line, in a process that begins with its imports done.

They are three quarters of the processor time of a start. So one process imports what serves, and does nothing else;
each service is forked from it, and runs the same command in the same environment as with `subprocess.Popen`.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import cast

from tests.process import REPOSITORY

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["service.serving"])


class Forked:
    """``conveyor`` with `arguments`, in a session of its own; what it prints is added to `log`.

    It can do what a `subprocess.Popen` can that `tests.process.Server` asks for.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._process = _CONTEXT.Process(target=_run, args=(arguments, environment, log))
        self._process.start()
        self.pid = cast("int", self._process.pid)

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (status := self.poll()) is None:
            raise subprocess.TimeoutExpired("conveyor", timeout or 0)
        return status

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended, and nobody has told yet
                os.kill(self.pid, number)


def _run(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
    os.setsid()
    os.chdir(REPOSITORY)
    os.environ.clear()
    os.environ.update(environment)
    with Path(os.devnull).open() as nothing, log.open("ab") as output:
        os.dup2(nothing.fileno(), 0)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  # uvicorn hands its number on to workers
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
            cast("TextIOWrapper", stream).reconfigure(line_buffering=True)

    from service.__main__ import cli

    cli(arguments)
