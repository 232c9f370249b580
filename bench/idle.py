"""Opens many sockets and leaves them open: reads an `IdleJob` from standard input, writes an `IdleSockets`."""

import asyncio
import sys

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
    url: str
    prefix: str
    count: int
    server_pid: int


class IdleSockets(msgspec.Struct, frozen=True):
    """Resident bytes of the service: before, with all sockets open, with a step taken on each."""

    before_rss: int
    opened_rss: int
    stepped_rss: int


async def run(job: IdleJob) -> IdleSockets:
    recorder = Recorder()
    group = family(job.server_pid)
    scenario = Scenario("idle", "", "websocket", job.count)
    recorder.stopping = True  # a connection that is started sends one message, and no more
    before = rss(group)
    connections = []
    made = senders(scenario, job.prefix, rows()[:1])
    for first in range(0, job.count, AT_ONCE):
        part = made[first : first + AT_ONCE]
        opened = [WebSocketConnection(each.messages, 1, 1, recorder) for each in part]
        addresses = [job.url + each.path for each in part]
        await asyncio.gather(*(c.connect(url, greeted=True) for c, url in zip(opened, addresses, strict=True)))
        connections += opened
    await recorder.run(REST_S)
    opened_rss = rss(group)
    for connection in connections:
        connection.start()
        await asyncio.wait_for(connection.idle.wait(), ANSWER_S)
    await recorder.run(REST_S)
    return IdleSockets(before, opened_rss, rss(group))


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=IdleJob)
    found = uvloop.run(run(job))
    hand_over(found)


if __name__ == "__main__":
    main()
