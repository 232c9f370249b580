"""A server that does not answer: one exchange waits for it, and no other until it answers again."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing

import pytest

from service.adapters.redis_connector import UNWANTED_S, Connector
from service.adapters.redis_link import RedisLink
from service.core.errors import OutcomeUnknown, StoreUnavailable
from tests.proxy import Proxy
from tests.servers import RedisServer

TIMEOUT_S = 2.0
AT_ONCE_S = 0.5 * TIMEOUT_S
"""Far less than an exchange that is waited for, and far more than one that is not takes on a busy machine."""


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer(restricted=False) as server:  # the link is tried with commands that the service never sends
        yield server
        server.signal(signal.SIGCONT)


@pytest.fixture
async def link(server: RedisServer) -> AsyncIterator[RedisLink]:
    link = RedisLink(server.url, timeout_s=TIMEOUT_S)
    await link.call("PING")
    yield link
    await link.close()


async def outcome(link: RedisLink) -> tuple[BaseException | None, float]:
    """How a call ends, and after how many seconds."""
    begun = time.monotonic()
    try:
        await link.call("INCR", "counted")
    except (OutcomeUnknown, StoreUnavailable) as error:
        return error, time.monotonic() - begun
    return None, time.monotonic() - begun


async def answers(link: RedisLink) -> int:
    """What has been counted, once the server answers."""
    async with asyncio.timeout(20):
        while True:
            try:
                return int((await link.call("GET", "counted")).value or 0)
            except StoreUnavailable:
                await asyncio.sleep(0.05)


async def test_a_server_that_hangs_is_waited_for_once(link: RedisLink, server: RedisServer) -> None:
    server.signal(signal.SIGSTOP)
    error, took_s = await outcome(link)
    assert isinstance(error, OutcomeUnknown), "it was sent"
    assert took_s < TIMEOUT_S + AT_ONCE_S
    for _ in range(20):
        error, took_s = await outcome(link)
        assert isinstance(error, StoreUnavailable), "it was not sent"
        assert error.detail == "Redis cannot be used: it does not answer in time"
        assert took_s < AT_ONCE_S
    server.signal(signal.SIGCONT)
    assert await answers(link) == 1, "what was sent first, and nothing else"
    assert (await outcome(link))[0] is None
    assert await answers(link) == 2


async def test_all_that_wait_for_a_connection_that_nobody_answers_are_told_together(server: RedisServer) -> None:
    link = RedisLink(server.url, timeout_s=TIMEOUT_S)
    server.signal(signal.SIGSTOP)
    ends = await asyncio.gather(*(outcome(link) for _ in range(10)))
    assert {type(error) for error, _ in ends} == {StoreUnavailable}
    assert max(took_s for _, took_s in ends) < TIMEOUT_S + AT_ONCE_S
    server.signal(signal.SIGCONT)
    assert await answers(link) == 0
    await link.close()


async def test_one_attempt_at_a_time_is_made_to_reach_it() -> None:
    connected = most = attempts = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connected, most, attempts
        attempts += 1
        connected += 1
        most = max(most, connected)
        with closing(writer):
            while await reader.read(1000):
                pass
        connected -= 1

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    link = RedisLink(f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}", timeout_s=0.5)
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        ends = await asyncio.gather(*(outcome(link) for _ in range(10)))
        assert {type(error) for error, _ in ends} == {StoreUnavailable}
        await asyncio.sleep(0.02)
    assert most == 1
    assert attempts > 2, "and one after the other"
    await link.close()
    listener.close()


async def test_a_connection_that_was_dead_alone_is_replaced_unnoticed(server: RedisServer) -> None:
    async with Proxy(server.url) as proxy:
        link = RedisLink(proxy.url, timeout_s=TIMEOUT_S)
        await link.call("PING")
        proxy.once(b"ECHO", "hang")
        first, *others = await asyncio.gather(*(link.call("ECHO", str(i)) for i in range(10)))
        assert first.repeated
        assert [reply.value for reply in (first, *others)] == [str(i).encode() for i in range(10)]
        await link.close()


async def test_a_command_that_hangs_twice_is_not_waited_for_twice(link: RedisLink) -> None:
    """The server answers whoever connects, and holds back writes."""
    await link.call("CLIENT", "PAUSE", 10_000, "WRITE")
    error, took_s = await outcome(link)
    assert isinstance(error, OutcomeUnknown)
    assert took_s < TIMEOUT_S + AT_ONCE_S
    await link.call("CLIENT", "UNPAUSE")


async def test_a_server_that_refuses_is_asked_each_time(link: RedisLink, server: RedisServer) -> None:
    """Nobody is kept waiting by it, so it serves from the moment it is there again."""
    server.kill()
    for _ in range(5):
        error, took_s = await outcome(link)
        assert isinstance(error, StoreUnavailable | OutcomeUnknown)
        assert took_s < AT_ONCE_S
    await asyncio.to_thread(server.start)
    assert (await outcome(link))[0] is None


async def test_what_was_begun_to_reach_a_server_ends_with_the_link(link: RedisLink, server: RedisServer) -> None:
    server.signal(signal.SIGSTOP)
    await outcome(link)
    await link.close()
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_a_server_that_nobody_asks_for_is_not_tried_for_ever(server: RedisServer) -> None:
    ahead_s = 0.0
    connector = Connector(server.url, timeout_s=0.5, clock=lambda: time.monotonic() + ahead_s)
    server.signal(signal.SIGSTOP)
    with pytest.raises(StoreUnavailable):
        await connector.open()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert others
    ahead_s = UNWANTED_S
    await asyncio.wait_for(asyncio.gather(*others), 20)
    server.signal(signal.SIGCONT)
    assert not (await connector.open()).closed
    await connector.close()
