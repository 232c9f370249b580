"""A bucket of timesteps, handed the time: what it admits, when to come back, what several processes admit together."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import RateLimited
from service.core.rate import Meter, RateLimit, rate_limit


def meter(rate: float = 10, burst: float = 5) -> Meter:
    return Meter("t:key", RateLimit(rate, burst))


def taken(meter: Meter, now: float, cost: float = 1) -> bool:
    try:
        meter.take(cost, now)
    except RateLimited:
        return False
    return True


def test_a_burst_is_admitted_and_then_the_rate() -> None:
    bucket = meter(rate=10, burst=5)
    assert [taken(bucket, 100.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert [taken(bucket, 100.1), taken(bucket, 100.1)] == [True, False]
    assert [taken(bucket, 200.0) for _ in range(7)] == [True] * 5 + [False] * 2, "it holds no more than its burst"


def test_who_comes_back_when_told_is_admitted_and_not_much_earlier() -> None:
    bucket = meter(rate=3, burst=4)
    bucket.take(4, 7.0)
    with pytest.raises(RateLimited, match="3 timesteps per second are allowed, 4 of them at once") as refused:
        bucket.take(2, 7.0)
    wait_s = refused.value.retry_after_s
    assert wait_s == pytest.approx(2 / 3, abs=0.002)
    assert not taken(bucket, 7.0 + wait_s - 0.01, 2)
    assert taken(bucket, 7.0 + wait_s, 2)


def test_what_is_refused_costs_nothing() -> None:
    bucket = meter(rate=1, burst=10)
    bucket.take(8, 0.0)
    assert not taken(bucket, 0.0, 3)
    assert (bucket.left(0.0), bucket.unsettled) == (pytest.approx(2), 8)


def test_more_than_a_bucket_holds_is_admitted_when_it_is_full_and_paid_for_afterwards() -> None:
    bucket = meter(rate=10, burst=5)
    bucket.take(1, 0.0)
    assert not taken(bucket, 0.0, 30)
    assert taken(bucket, 0.1, 30)
    assert bucket.left(0.1) == 0
    assert not taken(bucket, 2.6)
    assert taken(bucket, 2.71)


def test_what_is_given_back_can_be_taken_again() -> None:
    bucket = meter(burst=5)
    bucket.take(5, 0.0)
    bucket.give_back(2)
    assert (bucket.left(0.0), bucket.unsettled) == (pytest.approx(2), 3)


def test_what_others_took_is_missing_once_it_is_settled() -> None:
    bucket = meter(rate=10, burst=10)
    bucket.take(2, 0.0)
    charge = bucket.charge(0.1)
    assert charge == ("t:key", 2, 10, pytest.approx(0.1))
    bucket.take(1, 0.1)  # after what is being settled was counted
    bucket.settled(charge, backlog_s=0.6, now=0.2)  # others had taken some
    assert (bucket.left(0.2), bucket.unsettled) == (pytest.approx(10 - 6 - 1), 1)
    assert bucket.charge(0.3).age_s == pytest.approx(0.2), "since the charge before, not since the first of all"


def test_what_is_settled_late_is_full_again_no_later() -> None:
    bucket = meter(rate=10, burst=5)
    bucket.take(5, 0.0)
    charge = bucket.charge(0.3)
    bucket.settled(charge, backlog_s=charge.cost / charge.rate - charge.age_s, now=0.3)
    assert bucket.backlog_s(0.3) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("limit", "quota", "window_s"),
    [
        (RateLimit(100, 100), 100, 1),
        (RateLimit(100, 1000), 1000, 10),
        (RateLimit(0.5, 5), 5, 10),
        (RateLimit(100, 10), 100, 1),
    ],
)
def test_a_policy_is_told_in_whole_seconds_at_its_rate(limit: RateLimit, quota: int, window_s: int) -> None:
    assert (limit.window_s, limit.rate * limit.window_s) == (window_s, quota)


def test_a_burst_that_nobody_set_is_a_second_s_worth_and_at_least_one() -> None:
    assert rate_limit(20, None) == (20, 20)
    assert rate_limit(0.1, None) == (0.1, 1)
    assert rate_limit(20, 3) == (20, 3)


Asked = st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 8)), min_size=1, max_size=80)


@given(asked=Asked, rate=st.floats(0.5, 50), burst=st.integers(8, 40))
def test_no_stretch_of_time_sees_more_than_the_burst_and_the_rate(
    asked: list[tuple[float, int]], rate: float, burst: int
) -> None:
    bucket, now = meter(rate, burst), 1000.0
    admitted: list[tuple[float, int]] = []
    for pause, cost in asked:
        now += pause
        if taken(bucket, now, cost):
            admitted.append((now, cost))
    for i, (start, _) in enumerate(admitted):
        total = 0
        for end, cost in admitted[i:]:
            total += cost
            assert total <= burst + rate * (end - start) + 1e-3


@given(
    asked=st.lists(st.tuples(st.integers(0, 2), st.floats(0, 0.2), st.integers(1, 4)), min_size=1, max_size=150),
    rate=st.floats(1, 50),
    burst=st.integers(4, 30),
)
def test_three_processes_pass_the_limit_by_their_bursts_and_a_settling_at_most(
    asked: list[tuple[int, float, int]], rate: float, burst: int
) -> None:
    """Each settles every 0.1 s with a bucket that all share: the bound that docs/security.md states."""
    every_s, meters = 0.1, [meter(rate, burst) for _ in range(3)]
    due = deque((every_s * turn / 3, turn % 3) for turn in range(3))
    shared_full_at = now = total = 0.0
    for who, pause, cost in asked:
        now += pause
        while due[0][0] <= now:
            at, index = due.popleft()
            if meters[index].unsettled:
                charge = meters[index].charge(at)
                shared_full_at = max(shared_full_at, at - charge.age_s) + charge.cost / rate
                meters[index].settled(charge, max(0.0, shared_full_at - at), at)
            due.append((at + every_s, index))
        total += cost if taken(meters[who], now, cost) else 0
        assert total <= 3 * (burst + rate * every_s) + rate * now + 1e-3
