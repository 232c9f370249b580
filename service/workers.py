"""Several processes on one port: uvicorn's supervisor, with another mind on when one is ready, hangs or has ended."""

import fcntl
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from socket import socket
from tempfile import TemporaryDirectory
from typing import Self

import structlog
from uvicorn import Config
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from service.server import Server

log = structlog.get_logger(__name__)

POLL_S = 0.05
START_AGAIN_AFTER_S = 5.0
"""Between the starts of a worker that ends each time before it serves."""
_STOP = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def shared_folder() -> Iterator[Path]:
    """Make a private folder for what the workers share, and remove it at the end. Raises `OSError`."""
    with TemporaryDirectory(prefix="conveyor-workers-") as folder:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            # Keeps systemd-tmpfiles from removing what it finds old.
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield Path(folder)
        finally:
            os.close(descriptor)


class Worker(Process):
    """A process as its supervisor knows it: `ready` once it serves, last heard at `heard_at` (monotonic, seconds)."""

    ready: bool = False
    started_at: float = 0.0
    heard_at: float = 0.0

    def started(self) -> Self:
        """Start the process, and return it."""
        self.start()
        self.started_at = self.heard_at = time.monotonic()
        return self

    @cached_property
    def server(self) -> Server:
        return Server(self.config)

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    def ask(self) -> None:
        """Take the answers that have come, and ask again whether it serves. Waits for nothing."""
        while self.parent_conn.poll():
            self.ready = self.parent_conn.recv()
            self.heard_at = time.monotonic()
        self.parent_conn.send(b"ping")


class Workers(Multiprocess):
    """Starts workers, replaces those that end or hang, and ends them all.

    SIGTERM and SIGINT end the workers in order, SIGHUP replaces them one by one without a gap, SIGTTIN and SIGTTOU add
    and remove one. The first worker starts alone: what prevents its start ends the service, and is told once.
    From then on a worker that has ended is replaced, whatever it ended of.

    `silence_s` is how long a worker may leave its supervisor without an answer before it is killed, and `grace_s` what
    it gets to end when told to. `on_ready` is called once, when all serve.
    """

    def __init__(
        self, config: Config, listener: socket, *, silence_s: float, grace_s: float, on_ready: Callable[[], None]
    ) -> None:
        super().__init__(config, [listener])
        self.processes: list[Worker] = []  # type: ignore[assignment]
        self.start_failed = False
        self._silence_s = silence_s
        self._grace_s = grace_s
        self._on_ready: Callable[[], None] | None = on_ready

    def init_processes(self) -> None:
        first = self._start()
        self.processes.append(first)
        if self._await_ready(first):
            self.processes += [self._start() for _ in range(self.processes_num - 1)]
        elif not self._told_to_stop:
            self.start_failed = True
            self.should_exit.set()
            if first.exitcode != STARTUP_FAILURE:  # else it has said why
                log.error("the first worker ended before it could serve", pid=first.pid, status=first.exitcode)

    def keep_subprocess_alive(self) -> None:
        if self.should_exit.is_set():
            return
        for index, worker in enumerate(self.processes):
            worker.ask()
            if worker.alive and not self._hangs(worker):
                continue
            if worker.ready or time.monotonic() > worker.started_at + START_AGAIN_AFTER_S:
                self._end([worker])
                log.error("a worker has ended and is replaced", pid=worker.pid, status=worker.exitcode)
                self.processes[index] = self._start()
        if self._on_ready and all(worker.ready for worker in self.processes):
            self._on_ready()
            self._on_ready = None

    def restart_all(self) -> None:
        for index, old in enumerate(self.processes):
            new = self._start()
            if not self._await_ready(new):
                self._end([new])
                if not self._told_to_stop:
                    log.error("a new worker ended before it could serve: the old one stays", status=new.exitcode)
                return
            self.processes[index] = new
            self._end([old])

    def terminate_all(self) -> None:
        super().terminate_all()
        for listener in self.sockets:
            listener.close()  # so that the port closes with the last worker: who connected later would wait for nobody

    def join_all(self) -> None:
        # Who asks a second time wants no drain: a worker that gets its first signal again ends at once.
        self._join(self.processes, hurry=True)

    def handle_ttin(self) -> None:
        self.processes_num += 1
        self.processes.append(self._start())

    def handle_ttou(self) -> None:
        if self.processes_num > 1:
            self.processes_num -= 1
            self._end([self.processes.pop()])

    @property
    def _told_to_stop(self) -> bool:
        return any(number in _STOP for number in self.signal_queue)

    def _start(self) -> Worker:
        return Worker(self.config, self.sockets).started()

    def _await_ready(self, worker: Worker) -> bool:
        """Whether the worker came to serve; if not it has ended or hung, or all are to stop."""
        while worker.alive and not self._told_to_stop and not self._hangs(worker):
            worker.ask()
            if worker.ready:
                return True
            time.sleep(POLL_S)
        return False

    def _hangs(self, worker: Worker) -> bool:
        """Whether the worker has been silent for too long. It is killed then."""
        if time.monotonic() < worker.heard_at + self._silence_s:
            return False
        log.error("a worker hangs and is killed", pid=worker.pid, silent_s=self._silence_s)
        worker.process.kill()
        worker.process.join()
        return True

    def _end(self, workers: list[Worker]) -> None:
        for worker in workers:
            worker.terminate()
        self._join(workers)

    def _join(self, workers: list[Worker], *, hurry: bool = False) -> None:
        deadline = time.monotonic() + self._grace_s
        while left := [worker for worker in workers if worker.alive]:
            left[0].process.join(POLL_S)
            if hurry and self._told_to_stop:
                self.signal_queue.clear()
                for worker in left:
                    worker.terminate()
            if time.monotonic() > deadline:
                log.error("workers do not end and are killed", pids=[worker.pid for worker in left])
                for worker in left:
                    worker.process.kill()
                deadline = math.inf
