"""Admission: bursts wait, queues that stay do not grow."""

from random import Random

import pytest

from service.core.admission import Admission

COST_S = 1e-4
WAIT_S = 0.02
ACCEPTABLE = 200
"""Timesteps of `COST_S` in `WAIT_S`."""


@pytest.fixture
def admission() -> Admission:
    admission = Admission(max_queue=8000, max_wait_s=WAIT_S, random=Random(0))
    admission.worked(256, 256 * COST_S)
    return admission


def test_a_burst_may_fill_the_queue(admission: Admission) -> None:
    admission.taken(5000, 0.0)
    admission.taken(1000, 0.09)
    admission.taken(0, 0.11)
    assert not admission.congested
    assert admission.limit == 8000


def test_a_queue_that_stays_is_cut_to_what_is_done_in_time(admission: Admission) -> None:
    admission.taken(ACCEPTABLE, 0.0)
    admission.taken(ACCEPTABLE, 0.2)
    assert admission.congested
    assert admission.limit == ACCEPTABLE


def test_the_limit_holds_until_it_has_not_been_reached_for_a_while(admission: Admission) -> None:
    admission.taken(300, 0.0)
    admission.taken(300, 0.2)
    admission.taken(0, 0.4)
    admission.refused(1, 0.5)
    admission.taken(0, 1.4)
    assert admission.congested, "there was a refusal less than a second ago"
    admission.taken(0, 1.6)
    assert not admission.congested


def test_the_limit_follows_the_cost_of_large_batches_alone(admission: Admission) -> None:
    admission.worked(1, 1.0)
    for _ in range(50):
        admission.worked(256, 256 * COST_S * 2)
    admission.taken(300, 0.0)
    admission.taken(300, 0.2)
    assert admission.limit == pytest.approx(ACCEPTABLE / 2, rel=0.02)


def test_where_steps_are_slow_some_may_wait_all_the_same(admission: Admission) -> None:
    for _ in range(50):
        admission.worked(64, 64.0)
    admission.taken(64, 0.0)
    admission.taken(64, 0.2)
    assert admission.limit == 64


def test_nothing_is_cut_before_anything_is_known() -> None:
    admission = Admission(max_queue=8000, max_wait_s=WAIT_S)
    admission.taken(7000, 0.0)
    admission.taken(7000, 9.0)
    assert admission.limit == 8000


def test_who_is_refused_is_told_as_long_as_what_was_refused_would_take(admission: Admission) -> None:
    told = [admission.refused(100, second / 100) for second in range(100)]
    work_s = 100 * 100 * COST_S
    assert 0.5 * work_s <= told[-1] <= 1.5 * work_s
    assert len(set(told)) == len(told), "nobody is told the same"
    assert 0.05 <= admission.refused(1, 1000.0) <= 0.15, "what was refused long ago does not count"


def test_where_batches_are_small_they_tell_what_a_step_costs() -> None:
    admission = Admission(max_queue=8000, max_wait_s=WAIT_S, max_batch=8)
    admission.worked(8, 8 * COST_S)
    admission.taken(300, 0.0)
    admission.taken(300, 0.2)
    assert admission.limit == ACCEPTABLE


def test_refusing_gets_a_share_of_the_time() -> None:
    admission = Admission(max_queue=8000, max_wait_s=WAIT_S)
    at_once = sum(admission.may_refuse(100.0) for _ in range(10_000))
    assert 0 < at_once < 1000
    assert not admission.may_refuse(100.0)
    later = sum(admission.may_refuse(100.0 + millisecond / 1000) for millisecond in range(1000) for _ in range(100))
    assert later == pytest.approx(2500, abs=5), "a tenth of a second, at 40 us for each"


def test_rest_saves_up_no_more_than_may_be_refused_at_once() -> None:
    admission = Admission(max_queue=8000, max_wait_s=WAIT_S)
    first, second = (sum(admission.may_refuse(now) for _ in range(10_000)) for now in (100.0, 10_000.0))
    assert first == second


def test_who_waits_keeps_the_limit() -> None:
    admission = Admission(max_queue=8000, max_wait_s=WAIT_S)
    admission.worked(256, 256 * COST_S)
    admission.taken(300, 0.0)
    admission.taken(300, 0.2)
    admission.reached(1.0)
    admission.taken(0, 1.9)
    assert admission.congested
    admission.taken(0, 2.1)
    assert not admission.congested
