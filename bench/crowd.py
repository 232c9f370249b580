"""A million sessions and ten thousand sockets: ``python -m bench.crowd``. Results in ``results/crowd.json``.

What is done to many at a time, and not by steps: opening, listing, expiring, deleting. One service with its default
settings over one Redis; each figure is taken once, so it tells of seconds or minutes and of no percents.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode, urlsplit

import msgspec
import redis as client
import typer
from rich.console import Console
from rich.table import Table

from bench import machine, population
from bench.cores import divided
from bench.idle import IdleJob, IdleSockets
from bench.load import percentile_ms
from bench.measure import run_beside
from bench.once import Sent, send_once
from bench.openloop import OpenJob, OpenLoad
from bench.probes.sockets import WITHIN_S, allow_files
from bench.reference import MODEL_NAME, rows
from bench.report import WIDTH
from bench.servers import Redis, Server, conveyor, redis_server, temporary
from bench.traffic import request

RESULTS = Path(__file__).resolve().parent / "results"
CROWD, FEW, LIVE = "crowd", "few", "live"
FEW_SESSIONS, LIVE_SESSIONS = 100, 1000
RATE = 1000.0
"""Steps/s of the live sessions, while something else goes on: a tenth of what the service carries."""
SPREAD_MS = 3000
"""All of the crowd ends within so long."""
_LEAD_S_EACH = 25e-6
_DRAIN_S = 120
_NEARLY_ALL = 0.99
"""Redis takes its time over the last ones: it looks for them at random, and they are as good as gone."""


class Finding(msgspec.Struct, frozen=True):
    """How long so many took in all, and each of them where that was looked at."""

    what: str
    unit: str
    count: int
    seconds: float
    p50_ms: float | None = None
    p99_ms: float | None = None


class Run(msgspec.Struct, frozen=True):
    command: str
    machine: dict[str, str]
    sessions: int
    found: list[Finding]


class Crowd(msgspec.Struct, frozen=True):
    """What is there while it is measured."""

    redis: Redis
    server: Server
    sessions: int
    sockets: int
    calls: int
    seconds: float

    def measure(self) -> Iterator[Finding]:
        population.fill(self.redis, CROWD, self.sessions, tenant="somebody-else")
        population.fill(self.redis, FEW, FEW_SESSIONS)
        for limit in (10, 100, 1000):
            yield self._list(f"list {FEW_SESSIONS} among {self.sessions:,} of another tenant, limit {limit}", limit)
        with client.Redis.from_url(self.redis.url, socket_timeout=_DRAIN_S) as connection:
            connection.flushall(asynchronous=True)
        population.fill(self.redis, CROWD, self.sessions)
        population.fill(self.redis, LIVE, LIVE_SESSIONS)
        yield from self._open_and_delete()
        yield self._list(f"list {self.sessions:,}, limit 1000", 1000)
        yield self._beside("nothing else", lambda: None)[1]
        yield self._beside("one client lists", lambda: self._list("", 1000, self.seconds + 1))[1]
        yield from self._sockets()
        yield from self._expire()

    def _open_and_delete(self) -> Iterator[Finding]:
        """Open and delete sessions, one with each request."""
        body = msgspec.json.encode({"model": MODEL_NAME})
        for connections in (1, 16, 64):
            ids = [f"new-{connections}-{i}" for i in range(self.calls)]
            posts = (request("/v1/sessions", body) for _ in ids)
            puts = (request(f"/v1/sessions/{id_}", body, method="PUT") for id_ in ids)
            deletes = (request(f"/v1/sessions/{id_}", b"", method="DELETE") for id_ in ids)
            for method, requests, status in (("POST", posts, 201), ("PUT", puts, 201), ("DELETE", deletes, 204)):
                sent = asyncio.run(send_once(self.server.url, requests, connections, status))
                yield _found(f"{method}, connections: {connections}", "sessions", sent)

    def _list(self, what: str, limit: int, at_most_s: float = _DRAIN_S) -> Finding:
        """Go through the pages of the default tenant's sessions."""
        took: list[int] = []
        query: dict[str, object] = {"limit": limit}
        started = time.perf_counter()
        while time.perf_counter() < started + at_most_s:
            begun = time.perf_counter_ns()
            page = _page(self.server, query)
            took.append(time.perf_counter_ns() - begun)
            if page["cursor"] is None:
                break
            query["cursor"] = page["cursor"]
        seconds = time.perf_counter() - started
        took.sort()
        return Finding(what, "pages", len(took), seconds, percentile_ms(took, 0.5), percentile_ms(took, 0.99))

    def _beside(self, what: str, work: Callable[[], object]) -> tuple[object, Finding]:
        """Do something while the live sessions take their steps; return also how long those took."""
        job = OpenJob(
            wire="websocket",
            url=self.server.url,
            prefix=LIVE,
            sessions=LIVE_SESSIONS,
            connections=16,
            rate=RATE,
            warm_up_s=1.0,
            seconds=self.seconds,
            rows=rows(),
            server_pid=self.server.pid,
            redis_pid=self.redis.pid,
        )
        with ThreadPoolExecutor(1) as pool:
            stepping = pool.submit(run_beside, "bench.openloop", job, OpenLoad, self.seconds + 30)
            done = work()
            load = stepping.result()
        if load.refused or load.unsent:
            raise RuntimeError(f"while {what}, {load.refused} steps were refused and {load.unsent} not sent")
        return done, Finding(f"while {what}", "steps", load.taken, load.seconds, load.p50_ms, load.p99_ms)

    def _sockets(self) -> Iterator[Finding]:
        """Open sockets, each with a session of its own, and take a step on each, one after the other."""
        allow_files(self.sockets)
        job = IdleJob(self.server.url, "socket", self.sockets, self.server.pid, f"?model={MODEL_NAME}")
        found = run_beside("bench.idle", job, IdleSockets, WITHIN_S)
        yield Finding("open with ?model=", "sockets", self.sockets, found.opening_s)
        yield Finding("a step on each, one by one", "steps", self.sockets, found.stepping_s)

    def _expire(self) -> Iterator[Finding]:
        """Let the whole crowd end within seconds, and look at the steps of others meanwhile."""
        due_s = time.time() + 1 + _LEAD_S_EACH * self.sessions
        population.expire(self.redis, CROWD, self.sessions, int(due_s * 1000), SPREAD_MS)
        if time.time() > due_s:
            raise RuntimeError("the sessions began to expire before all of them had been told to")
        time.sleep(due_s - time.time())
        seconds, steps = self._beside(f"{self.sessions:,} sessions expire", self._wait_for_the_end)
        yield steps
        assert isinstance(seconds, float)
        yield Finding(
            f"until Redis had forgotten {_NEARLY_ALL:.0%}", "sessions", int(_NEARLY_ALL * self.sessions), seconds
        )

    def _wait_for_the_end(self) -> float:
        started = time.perf_counter()
        with client.Redis.from_url(self.redis.url, socket_timeout=_DRAIN_S) as connection:
            before = connection.dbsize()
            while connection.dbsize() > before - _NEARLY_ALL * self.sessions:
                if time.perf_counter() > started + _DRAIN_S:
                    raise RuntimeError(f"Redis still had expired sessions after {_DRAIN_S} s")
                time.sleep(0.1)
        return time.perf_counter() - started


def crowd(
    sessions: Annotated[int, typer.Option(help="Live sessions in Redis.")] = 1_000_000,
    sockets: Annotated[int, typer.Option(help="Open sockets.")] = 10_000,
    calls: Annotated[int, typer.Option(help="Sessions that are opened and deleted one by one, for each row.")] = 5000,
    seconds: Annotated[float, typer.Option(help="How long steps are measured beside something else.")] = 6.0,
    hz: Annotated[int, typer.Option(help="Redis's own default is 10.")] = 100,
    results: Annotated[Path, typer.Option(help="Folder for the JSON.")] = RESULTS,
) -> None:
    """See whether a crowd can be opened, listed, expired and deleted in a time that is of use."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    # Redis would rewrite its append-only file in the middle of it, because so much has just been written.
    with (
        temporary() as folder,
        divided() as core,
        redis_server(folder, auto_aof_rewrite_percentage="0", hz=str(hz)) as redis,
        conveyor(redis, folder, core) as server,
    ):
        found = list(Crowd(redis, server, sessions, sockets, calls, seconds).measure())
        run = Run(" ".join(["python -m bench.crowd", *sys.argv[1:]]), machine.describe(redis.binary), sessions, found)
    _print(found, console)
    results.mkdir(parents=True, exist_ok=True)
    (results / "crowd.json").write_bytes(msgspec.json.format(msgspec.json.encode(run)))
    console.print(f"written: {results / 'crowd.json'}")


def _page(server: Server, query: dict[str, object]) -> Any:
    address = urlsplit(server.url)
    with closing(HTTPConnection(address.hostname or "", address.port, timeout=_DRAIN_S)) as connection:
        connection.request("GET", f"/v1/sessions?{urlencode(query)}")
        response = connection.getresponse()
        content = response.read()
    if response.status != 200:
        raise RuntimeError(f"a page was not listed: {response.status} {content[:300]!r}")
    return msgspec.json.decode(content)


def _found(what: str, unit: str, sent: Sent) -> Finding:
    return Finding(what, unit, sent.count, sent.seconds, sent.p50_ms, sent.p99_ms)


def _print(found: list[Finding], console: Console) -> None:
    table = Table("what", "how many", "", "seconds", "a second", "p50 ms", "p99 ms")
    for column in (1, 3, 4, 5, 6):
        table.columns[column].justify = "right"
    for each in found:
        percentiles = ("" if ms is None else f"{ms:,.1f}" for ms in (each.p50_ms, each.p99_ms))
        rate = f"{each.count / each.seconds:,.0f}"
        table.add_row(each.what, f"{each.count:,}", each.unit, f"{each.seconds:.1f}", rate, *percentiles)
    console.print(table)


if __name__ == "__main__":
    typer.run(crowd)
