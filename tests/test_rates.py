"""The rate limits of one process: one meter for each who asks, settled in the background, forgotten when it is full."""

import asyncio
import time
from collections.abc import Callable, Sequence

import pytest

from service.adapters.memory_rates import MemoryRates
from service.adapters.metrics import PrometheusObserver
from service.core.access import Principal
from service.core.errors import RateLimited, StoreUnavailable
from service.core.rate import Charge, RateLimit
from service.rates import Rates
from tests.process import wait_until


class CountingRates(MemoryRates):
    """The in-process buckets, counting what is settled, which can be made to fail or to take their time."""

    def __init__(self) -> None:
        super().__init__()
        self.charges: list[list[Charge]] = []
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def charge(self, charges: Sequence[Charge]) -> list[float]:
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.charges.append(list(charges))
        return await super().charge(charges)


def somebody(name: str = "key", rate: float | None = None, burst: int | None = None) -> Principal:
    return Principal("t", name, frozenset(), rate, burst)


def rates(shared: MemoryRates, default: RateLimit | None = None) -> Rates:
    return Rates(default, shared, PrometheusObserver())


async def until(true: Callable[[], object]) -> None:
    assert await asyncio.to_thread(wait_until, lambda: bool(true()), 20)


async def test_who_has_no_limit_has_no_meter() -> None:
    assert rates(MemoryRates()).meter(somebody()) is None
    meter = rates(MemoryRates()).meter(somebody(rate=5))
    assert meter is not None
    assert meter.limit == (5, 5)


async def test_one_who_asks_has_one_meter_whose_limit_is_the_last_that_was_given() -> None:
    held = rates(MemoryRates(), RateLimit(1, 1))
    first = held.meter(somebody())
    assert first is held.meter(somebody())
    assert first is not held.meter(somebody("other"))
    assert first is held.meter(somebody(rate=7, burst=9))
    assert first is not None
    assert first.limit == (7, 9)


async def test_what_was_taken_is_settled_at_once_and_then_all_together() -> None:
    shared = CountingRates()
    held = rates(shared, RateLimit(0.01, 100))
    one, two = held.meter(somebody("one")), held.meter(somebody("two"))
    assert one is not None
    assert two is not None
    held.take(one, 1)
    await until(lambda: shared.charges)
    for _ in range(5):
        held.take(one, 1)
        held.take(two, 2)
    await until(lambda: len(shared.charges) > 1)
    assert [(charge.name, charge.cost) for charge in shared.charges[0]] == [("t:one", 1)]
    assert sorted((charge.name, charge.cost) for charge in shared.charges[1]) == [("t:one", 5), ("t:two", 10)]
    await held.close()


async def test_who_owes_nothing_is_forgotten() -> None:
    held = rates(MemoryRates(), RateLimit(1000, 10))
    for i in range(100):
        meter = held.meter(somebody(str(i)))
        assert meter is not None
        held.take(meter, 5)
    del meter
    assert len(held._meters) == 100
    await until(lambda: not held._meters)
    assert held._timer is None, "and nothing is done any more"
    await held.close()


async def test_where_nothing_can_be_settled_the_limit_holds_and_it_is_settled_later() -> None:
    shared = CountingRates()
    shared.failure = StoreUnavailable("away")
    held = rates(shared, RateLimit(0.01, 3))
    meter = held.meter(somebody())
    assert meter is not None
    for _ in range(3):
        held.take(meter, 1)
    await asyncio.sleep(0.3)
    with pytest.raises(RateLimited):
        held.take(meter, 1)
    shared.failure = None
    await until(lambda: shared.charges)
    assert [charge.cost for charge in shared.charges[0]] == [3]
    await held.close()


async def test_what_is_open_is_settled_at_the_end_unless_that_takes_long() -> None:
    shared = CountingRates()
    held = rates(shared, RateLimit(0.01, 10))
    meter = held.meter(somebody())
    assert meter is not None
    held.take(meter, 1)
    await until(lambda: shared.charges)
    held.take(meter, 1)
    await held.close()
    assert [charges[0].cost for charges in shared.charges] == [1, 1]

    held.take(meter, 1)
    shared.gate.clear()
    began = time.monotonic()
    await held.close()
    assert time.monotonic() - began < 10


async def test_a_defect_in_one_settling_does_not_end_all_that_follow() -> None:
    shared = CountingRates()
    held = rates(shared, RateLimit(0.01, 100))
    meter = held.meter(somebody())
    assert meter is not None
    shared.failure = UnicodeEncodeError("utf-8", "\ud800", 0, 1, "a defect")
    held.take(meter, 1)
    await asyncio.sleep(0.05)
    shared.failure = None
    held.take(meter, 1)
    await until(lambda: shared.charges)
    await held.close()
