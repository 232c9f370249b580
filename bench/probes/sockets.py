"""The service's resident memory per open socket: idle ones, and ones that have taken a step each.

The kernel's buffers are not in it. The sessions are there already; opening a socket reads its session.
"""

from collections.abc import Iterator

from bench import population
from bench.cores import divided
from bench.effort import Effort
from bench.goals import SOCKET_KIB
from bench.idle import IdleJob, IdleSockets
from bench.measure import run_beside
from bench.servers import conveyor, redis_server, temporary
from bench.summary import Reading
from service import open_files

PREFIX = "idle"
WITHIN_S = 120


def probe(effort: Effort) -> Iterator[tuple[int, Reading]]:
    count = effort.sockets
    allow_files(count)
    with temporary() as folder, divided() as core, redis_server(folder) as redis:
        population.fill(redis, PREFIX, count)
        with conveyor(redis, folder, core) as server:
            job = IdleJob(url=server.url, prefix=PREFIX, count=count, server_pid=server.pid)
            found = run_beside("bench.idle", job, IdleSockets, WITHIN_S)
    kib = (found.opened_rss - found.before_rss) / count / 1024
    yield 1, Reading(f"Service memory per idle socket, {count:,} open", "KiB", kib, SOCKET_KIB)
    stepped = (found.stepped_rss - found.before_rss) / count / 1024
    yield 1, Reading(f"The same, each after a step: {population.tensor_bytes():,} B of it remembered", "KiB", stepped)


def allow_files(sockets: int) -> None:
    """Raise the limit of open files, here and in what is started here. Raises RuntimeError where that is refused."""
    if (room := open_files.allow(sockets)) < sockets:
        needed = sockets + open_files.BESIDE
        raise RuntimeError(f"{needed} open files are needed, there is room for {room} sockets (ulimit -Hn)")
