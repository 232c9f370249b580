"""The breaker's states, by a clock that the test sets."""

from service.adapters.redis_breaker import Breaker
from tests.clock import Time


def test_one_of_those_that_open_it_is_told_to_probe() -> None:
    breaker = Breaker(Time())
    assert not breaker.is_open
    assert [breaker.open(0.5) for _ in range(3)] == [True, False, False]
    assert breaker.is_open
    breaker.close()
    assert not breaker.is_open
    assert breaker.open(0.5), "the next outage has a probe of its own"


def test_only_who_calls_soon_after_the_failure_may_wait() -> None:
    breaker = Breaker(time := Time())
    breaker.open(0.5)
    assert breaker.patience_s == 0.5
    time.now += 0.25
    breaker.open(0.5)
    assert breaker.patience_s == 0.25, "what is late after the first puts it off no further"
    time.now += 3
    assert breaker.patience_s == 0


def test_who_finds_it_closed_waits_for_no_probe() -> None:
    breaker = Breaker(Time())
    assert breaker.patience_s == 0
    breaker.open(0)
    assert breaker.patience_s == 0
