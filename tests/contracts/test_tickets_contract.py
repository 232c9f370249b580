"""What every `Tickets` promises: one suite for the process and for each Redis of this machine."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.adapters.memory_tickets import MemoryTickets
from service.adapters.redis_link import RedisLink
from service.adapters.redis_tickets import RedisTickets
from service.core.access import Principal, Scope
from service.core.tickets import Tickets, digest_of, new_ticket, packed, unpacked
from tests.servers import redis_command


@pytest.fixture
async def tickets(url: str) -> AsyncIterator[Tickets]:
    if url == "memory://":
        yield MemoryTickets()
        return
    link = RedisLink(url, timeout_s=5)
    yield RedisTickets(link)
    await link.close()


async def test_a_ticket_is_good_for_once(tickets: Tickets) -> None:
    digest = digest_of(new_ticket())
    await tickets.keep(digest, b"somebody", 30)
    assert await tickets.take(digest) == b"somebody"
    assert await tickets.take(digest) is None


async def test_of_many_who_show_it_at_once_one_gets_in(tickets: Tickets) -> None:
    digest = digest_of(new_ticket())
    await tickets.keep(digest, b"somebody", 30)
    found = await asyncio.gather(*(tickets.take(digest) for _ in range(50)))
    assert sorted(found, key=bool) == [None] * 49 + [b"somebody"]


async def test_one_that_was_never_issued_is_not_good(tickets: Tickets) -> None:
    await tickets.keep(digest_of(new_ticket()), b"somebody", 30)
    assert await tickets.take(digest_of(new_ticket())) is None


async def test_one_that_has_expired_is_not_good(tickets: Tickets) -> None:
    short, long = digest_of(new_ticket()), digest_of(new_ticket())
    await tickets.keep(short, b"short", 0.05)
    await tickets.keep(long, b"long", 30)
    await asyncio.sleep(0.2)
    assert await tickets.take(short) is None
    assert await tickets.take(long) == b"long"


async def test_who_reads_the_store_finds_no_ticket(tickets: Tickets, url: str) -> None:
    ticket = new_ticket()
    await tickets.keep(digest_of(ticket), b"somebody", 30)
    kept = repr(vars(tickets)) if url == "memory://" else repr(redis_command(url, "KEYS", "*"))
    assert digest_of(ticket).decode() in kept
    assert ticket not in kept


async def test_none_is_left_behind(tickets: Tickets, url: str) -> None:
    for _ in range(20):
        await tickets.keep(digest_of(new_ticket()), b"nobody came", 0.02)
    await asyncio.sleep(0.1)
    await tickets.keep(last := digest_of(new_ticket()), b"somebody", 0.02)
    if isinstance(tickets, MemoryTickets):
        assert list(tickets._kept) == [last]
    else:
        assert all(int(redis_command(url, "PTTL", key)) <= 30_000 for key in redis_command(url, "KEYS", "*"))


def test_a_bearer_keeps_every_field_and_gets_no_more() -> None:
    bearer = Principal("plant-7", "ölpumpe", frozenset({Scope.STEP}), 2.5, 10, "kid", 1.7e9)
    assert unpacked(packed(bearer)) == bearer
    assert all(isinstance(scope, Scope) for scope in unpacked(packed(bearer)).scopes)


def test_tickets_differ_and_fit_into_a_query() -> None:
    tickets = {new_ticket() for _ in range(1000)}
    assert len(tickets) == 1000
    assert all(len(ticket) >= 43 and ticket.replace("-", "").replace("_", "").isalnum() for ticket in tickets)
