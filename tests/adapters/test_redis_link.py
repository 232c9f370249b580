"""One connection for everything: exchanges keep their order, and fail together when it fails."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import closing

import pytest

from service.adapters.redis_link import RedisLink, Script, bulk
from service.core.errors import OutcomeUnknown, StoreUnavailable
from tests.proxy import Proxy
from tests.servers import RedisServer, redis_binaries


@pytest.fixture(scope="module", params=redis_binaries(), ids=lambda found: found[0])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    # The link is tried with commands that the service never sends.
    with RedisServer(request.param[1], restricted=False) as server:
        yield server


@pytest.fixture
async def link(server: RedisServer) -> AsyncIterator[RedisLink]:
    link = RedisLink(server.url, timeout_s=1.0)
    yield link
    await link.close()


async def connection_id(link: RedisLink) -> int:
    return int((await link.call("CLIENT", "ID")).value)


async def test_many_exchanges_are_in_flight_on_one_connection_and_get_their_own_replies(link: RedisLink) -> None:
    replies = await asyncio.gather(*(link.call("ECHO", str(i)) for i in range(500)))
    assert [reply.value for reply in replies] == [str(i).encode() for i in range(500)]
    ids = await asyncio.gather(*(connection_id(link) for _ in range(10)))
    assert len(set(ids)) == 1


async def test_a_caller_that_is_cancelled_costs_neither_the_connection_nor_the_next_reply(link: RedisLink) -> None:
    before = await connection_id(link)
    waiting = asyncio.create_task(link.call("BLPOP", "nothing", 0.2))
    await asyncio.sleep(0.05)
    waiting.cancel()
    assert (await link.call("ECHO", "next")).value == b"next"
    assert await connection_id(link) == before


async def test_a_late_reply_ends_all_that_is_in_flight_and_the_connection(link: RedisLink) -> None:
    before = await connection_id(link)
    # Redis must never end this itself: by its clock, or after a stall of this process, its own limit may pass too soon.
    late = asyncio.create_task(link.call_once("BLPOP", "nothing", 0))
    await asyncio.sleep(0)
    behind = asyncio.create_task(link.call_once("ECHO", "behind"))
    for task in (late, behind):
        with pytest.raises(OutcomeUnknown, match="no reply within 1 s"):
            await task
    assert await connection_id(link) != before


async def test_what_nobody_waits_for_is_answered_in_its_turn(link: RedisLink) -> None:
    script = Script("prefetch")
    link.send(script, 1, [bulk(b"a")])  # there is no connection yet
    await link.call("RPUSH", "list", "1")
    for i in range(3):
        link.send(script, 2, [bulk(b"nothing"), bulk(b"list")])  # of the wrong type
        assert (await link.call("ECHO", str(i))).value == str(i).encode()
    late = asyncio.create_task(link.call_once("BLPOP", "nothing", 0))
    await asyncio.sleep(0)
    link.send(script, 1, [bulk(b"a")])
    with pytest.raises(OutcomeUnknown, match="no reply within 1 s"):
        await late
    link.send(script, 1, [bulk(b"a")])  # on the connection that was closed then
    assert (await link.call("ECHO", "next")).value == b"next"


async def test_what_is_no_reply_ends_the_connection(server: RedisServer) -> None:
    async def gibberish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            while await reader.read(1000):
                writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    listener = await asyncio.start_server(gibberish, "127.0.0.1", 0)
    link = RedisLink(f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}", timeout_s=1.0)
    with pytest.raises((OutcomeUnknown, StoreUnavailable)):
        await link.call("PING")
    await link.close()
    listener.close()


async def test_a_connection_that_was_closed_meanwhile_is_replaced_unnoticed(server: RedisServer) -> None:
    async with Proxy(server.url) as proxy:
        link = RedisLink(proxy.url, timeout_s=1.0)
        before = await connection_id(link)
        proxy.once(b"ECHO", "lose the request")
        assert (await link.call("ECHO", "again")).repeated
        assert await connection_id(link) != before
        await link.close()


async def test_a_connection_that_breaks_as_its_server_is_asked_leaves_nobody_waiting() -> None:
    info = b"redis_version:7.2.0\r\naof_enabled:1\r\n"

    async def breaking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            while asked := await reader.read(1000):
                writer.write(b"$%d\r\n%b\r\nand no reply\r\n" % (len(info), info) if b"INFO" in asked else b"+PONG\r\n")

    listener = await asyncio.start_server(breaking, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    link = RedisLink(url, timeout_s=1.0, durability="aof")
    async with asyncio.timeout(20):
        with pytest.raises(StoreUnavailable):
            await link.call("GET", "a")
    await link.close()
    listener.close()
