"""Opens many sockets and leaves them open: reads an `IdleJob` from standard input, writes an `IdleSockets`."""

import asyncio
import sys
from time import perf_counter

import msgspec
import uvloop

from bench.clients import Recorder, WebSocketConnection
from bench.load import family, hand_over, rss
from bench.reference import rows
from bench.scenarios import Scenario
from bench.traffic import senders

AT_ONCE = 64
"""Handshakes under way at a time: fewer than a listening socket queues."""
REST_S = 1.0
"""Given to the service to finish what it does after a handshake."""
ANSWER_S = 10


class IdleJob(msgspec.Struct, frozen=True):
    """Open `count` sockets, of sessions that are there, or with a `query` that opens them."""

    url: str
    prefix: str
    count: int
    server_pid: int
    query: str = ""


class IdleSockets(msgspec.Struct, frozen=True):
    """Resident bytes of the service: before, with all sockets open, with a step taken on each.

    And the seconds it took to open all, and to step all, one after the other.
    """

    before_rss: int
    opened_rss: int
    stepped_rss: int
    opening_s: float
    stepping_s: float


async def run(job: IdleJob) -> IdleSockets:
    recorder = Recorder()
    group = family(job.server_pid)
    scenario = Scenario("idle", "", "websocket", job.count)
    recorder.stopping = True  # a connection that is started sends one message, and no more
    before = rss(group)
    connections = []
    made = senders(scenario, job.prefix, rows()[:1])
    started = perf_counter()
    for first in range(0, job.count, AT_ONCE):
        part = made[first : first + AT_ONCE]
        opened = [WebSocketConnection(each.messages, 1, 1, recorder) for each in part]
        addresses = [job.url + each.path + job.query for each in part]
        await asyncio.gather(*(c.connect(url, greeted=True) for c, url in zip(opened, addresses, strict=True)))
        connections += opened
    opening_s = perf_counter() - started
    await recorder.run(REST_S)
    opened_rss = rss(group)
    started = perf_counter()
    for connection in connections:
        connection.start()
        await asyncio.wait_for(connection.idle.wait(), ANSWER_S)
    stepping_s = perf_counter() - started
    await recorder.run(REST_S)
    return IdleSockets(before, opened_rss, rss(group), opening_s, stepping_s)


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=IdleJob)
    found = uvloop.run(run(job))
    hand_over(found)


if __name__ == "__main__":
    main()
