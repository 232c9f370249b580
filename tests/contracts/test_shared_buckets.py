"""What every `SharedBuckets` promises: one suite for the process and for each Redis of this machine."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from service.adapters.memory_rates import MemoryRates
from service.adapters.redis_link import RedisLink
from service.adapters.redis_rates import RedisRates
from service.core.rate import Charge, SharedBuckets
from tests.servers import redis_command


@pytest.fixture
async def buckets(url: str) -> AsyncIterator[SharedBuckets]:
    if url == "memory://":
        yield MemoryRates()
        return
    link = RedisLink(url, timeout_s=5)
    yield RedisRates(link)
    await link.close()


@pytest.fixture
def name() -> str:
    return f"t:{uuid.uuid4()}"


async def test_a_bucket_is_full_when_what_was_taken_has_flown_in_again(buckets: SharedBuckets, name: str) -> None:
    assert await buckets.charge([Charge(name, 50, 5)]) == [pytest.approx(10, abs=1)]
    assert await buckets.charge([Charge(name, 5, 5)]) == [pytest.approx(11, abs=2)]


async def test_time_fills_a_bucket_and_never_beyond(buckets: SharedBuckets, name: str) -> None:
    await buckets.charge([Charge(name, 1, 20)])
    await asyncio.sleep(0.3)
    (backlog_s,) = await buckets.charge([Charge(name, 100, 1)])
    assert backlog_s == pytest.approx(100, abs=0.01), "a bucket that has been full for long holds no more for it"


async def test_buckets_do_not_touch_each_other(buckets: SharedBuckets, name: str) -> None:
    backlogs = await buckets.charge([Charge(f"{name}{i}", 100 * (i + 1), 1) for i in range(3)])
    assert backlogs == [pytest.approx(100 * (i + 1), abs=0.01) for i in range(3)]
    assert await buckets.charge([Charge(f"{name}3", 1, 1)]) == [pytest.approx(1, abs=0.01)]


async def test_all_that_is_taken_at_once_counts(buckets: SharedBuckets, name: str) -> None:
    await asyncio.gather(*(buckets.charge([Charge(name, 2, 1)]) for _ in range(100)))
    (backlog_s,) = await buckets.charge([Charge(name, 1, 1)])
    assert 195 <= backlog_s <= 201


async def test_a_bucket_fills_from_when_it_was_taken_from(buckets: SharedBuckets, name: str) -> None:
    assert await buckets.charge([Charge(name, 50, 5, age_s=4)]) == [pytest.approx(6, abs=0.01)]
    assert await buckets.charge([Charge(name, 5, 5, age_s=4)]) == [pytest.approx(7, abs=1)]
    assert await buckets.charge([Charge(f"{name}x", 1, 5, age_s=4)]) == [0], "it has been full again for long"
    assert await buckets.charge([Charge(f"{name}x", 5, 5)]) == [pytest.approx(1, abs=0.01)]


async def test_a_part_of_a_timestep_is_not_lost(buckets: SharedBuckets, name: str) -> None:
    for _ in range(3):
        (backlog_s,) = await buckets.charge([Charge(name, 1, 3e6)])
    assert backlog_s > 0


async def test_a_full_bucket_takes_no_room(buckets: SharedBuckets, url: str, name: str) -> None:
    await buckets.charge([Charge(name, 1, 100)])
    await asyncio.sleep(0.3)
    await buckets.charge([Charge(f"{name}x", 1, 1)])
    kept = list(buckets._full_at) if isinstance(buckets, MemoryRates) else redis_command(url, "KEYS", f"*{name}*")
    assert [key for key in kept if key.endswith(name)] == []
    assert [key for key in kept if key.endswith(f"{name}x")]
