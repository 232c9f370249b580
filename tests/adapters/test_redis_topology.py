"""When a cluster is asked who serves what, by a clock that the test sets; and what is believed."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from service.adapters.redis_address import Address
from service.adapters.redis_topology import FIRST_PAUSE_S, LONGEST_PAUSE_S, Rereading, Topology
from service.core.errors import StoreUnavailable
from tests.clock import Time

A, B = Address("a", 1), Address("b", 2)
HELD_BY_A: list[Any] = [[0, 16383, [b"a", 1]]]
HELD_BY_B: list[Any] = [[0, 16383, [b"b", 2]]]


class TestRereading:
    @pytest.fixture
    def time(self) -> Time:
        return Time()

    @pytest.fixture
    def rereading(self, time: Time) -> Rereading:
        """Of a map that was read long ago, and is believed."""
        rereading = Rereading(time)
        assert rereading.due, "at first nothing is known"
        rereading.done(read=True, changed=True)
        time.now += 60
        return rereading

    def test_a_map_that_nothing_speaks_against_is_not_read(self, rereading: Rereading) -> None:
        assert not rereading.needed
        assert not rereading.due

    def test_after_a_failure_it_is_read_at_once_and_then_ever_more_seldom(
        self, rereading: Rereading, time: Time
    ) -> None:
        read_at = []
        for _ in range(1000):
            rereading.doubt()
            if rereading.due:
                read_at.append(time.now)
                rereading.done(read=True, changed=False)
            time.now += 0.01
        pauses = [later - earlier for earlier, later in pairwise(read_at)]
        assert read_at[0] == 160
        assert pauses[:4] == pytest.approx([0.2, 0.4, 0.8, 0.8], abs=0.02)
        assert max(pauses) < LONGEST_PAUSE_S + 0.02

    def test_news_make_it_quick_again(self, rereading: Rereading, time: Time) -> None:
        for _ in range(10):
            rereading.done(read=False, changed=False)
        rereading.done(read=True, changed=True)
        rereading.doubt()
        time.now += FIRST_PAUSE_S
        assert rereading.due

    def test_where_nobody_answers_it_is_still_needed(self, rereading: Rereading) -> None:
        rereading.doubt()
        rereading.done(read=False, changed=False)
        assert rereading.needed
        assert not rereading.due

    def test_a_redirection_is_followed_up_at_once_but_not_each_of_many(self, rereading: Rereading, time: Time) -> None:
        for _ in range(10):
            rereading.doubt()
            rereading.done(read=True, changed=False)
        rereading.doubt()
        assert not rereading.due
        rereading.redirect()
        assert rereading.due
        rereading.done(read=True, changed=False)
        rereading.redirect()
        assert not rereading.due
        time.now += FIRST_PAUSE_S
        rereading.redirect()
        assert rereading.due


async def test_however_many_ask_it_is_read_once() -> None:
    asked: list[Address] = []

    async def ask(address: Address) -> Any:
        asked.append(address)
        await asyncio.sleep(0.05)
        return HELD_BY_A

    topology = Topology([A, B], ask, patience_s=1)
    await asyncio.gather(*(topology.refresh() for _ in range(20)))
    assert sorted(asked) == [A, B]
    assert topology.slots.masters() == {A: 0}
    assert not topology.doubtful


async def test_the_first_that_answers_is_believed_and_nobody_who_has_a_map_waits_long_for_it() -> None:
    silent = asyncio.Event()

    async def ask(address: Address) -> Any:
        if address == A:
            raise StoreUnavailable("a is away")
        await silent.wait()
        return HELD_BY_B

    topology = Topology([A, B], ask, patience_s=0.05)
    first = asyncio.create_task(topology.refresh())
    await asyncio.sleep(0.2)
    assert not first.done(), "without a map there is nothing to go by"
    silent.set()
    await first
    assert topology.slots.masters() == {B: 0}
    silent.clear()
    topology.move(0, A)
    async with asyncio.timeout(20):
        await topology.refresh()
    assert topology.doubtful
    assert topology.slots.owner(0) == A, "the old one is kept meanwhile"
    await topology.close()


async def test_why_nothing_is_known_is_said() -> None:
    async def ask(address: Address) -> Any:
        raise StoreUnavailable(f"{address.host} is away")

    topology = Topology([A], ask, patience_s=1)
    await topology.refresh()
    assert not topology.slots.known
    assert topology.why_unknown == "a is away"
