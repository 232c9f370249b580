"""Whether remembered records are worth being run on: what ends that trust, what brings it back, what does neither."""

import random
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from service.core.trust import BREAK_EVEN, Trust

SHARES = st.floats(0, 1)
SIZES = st.lists(st.integers(1, 256), min_size=1, max_size=20)


def doubtful() -> Trust:
    trust = Trust()
    while trust.holds:
        trust.weigh(1, 1)
    return trust


def steps_until(trust: Trust, *, holds: bool, outdated: Iterable[bool]) -> int:
    """Weigh one step after the other until trust is as asked for; return their count."""
    for count, each in enumerate(outdated):
        if trust.holds is holds:
            return count
        trust.weigh(each, 1)
    raise AssertionError("it never came to that")


def drawn(share: float, count: int, seed: int = 1) -> list[bool]:
    chance = random.Random(seed)
    return [chance.random() < share for _ in range(count)]


def test_there_is_trust_at_first() -> None:
    assert Trust().holds


def test_one_loss_in_a_thousand_changes_nothing() -> None:
    trust = Trust()
    for _ in range(1000):
        trust.weigh(1, 0)
        trust.weigh(0, 1000)
        assert trust.holds
    assert steps_until(trust, holds=False, outdated=[True] * 300) > 100, "and it is forgotten"


def test_a_fleet_that_begins_to_wander_is_noticed_within_a_few_hundred_steps() -> None:
    trust = Trust()
    trust.weigh(0, 10**6)
    assert steps_until(trust, holds=False, outdated=[True] * 200) > 100
    for share in (0.5, 0.67, 0.9):
        assert steps_until(Trust(), holds=False, outdated=drawn(share, 10_000)) < 1000


def test_trust_comes_back_when_sessions_stay() -> None:
    trust = doubtful()
    assert steps_until(trust, holds=True, outdated=[False] * 600) > 400
    assert steps_until(trust, holds=False, outdated=[True] * 200) > 100


def test_about_the_break_even_trust_does_not_flutter() -> None:
    trust = Trust()
    changes, before = 0, trust.holds
    for outdated in drawn(1 / BREAK_EVEN, 100_000):
        trust.weigh(outdated, 1)
        changes += trust.holds is not before
        before = trust.holds
    assert changes < 20


@given(share=SHARES, size=st.integers(1, 256), start=st.booleans(), seed=st.integers(0, 99))
def test_in_the_end_the_share_decides(share: float, size: int, start: bool, seed: int) -> None:
    if abs(share - 1 / BREAK_EVEN) < 0.1:
        return
    trust = Trust() if start else doubtful()
    outcomes = drawn(share, 256 * 40, seed)
    for at in range(0, len(outcomes), size):
        part = outcomes[at : at + size]
        trust.weigh(sum(part), len(part))
    assert trust.holds is (share < 1 / BREAK_EVEN)


@given(sizes=SIZES)
def test_where_nothing_is_out_of_date_trust_never_ends(sizes: list[int]) -> None:
    trust = Trust()
    for size in sizes:
        trust.weigh(0, size)
        assert trust.holds


@given(sizes=SIZES)
def test_steps_count_and_not_their_batches(sizes: list[int]) -> None:
    """A batch that lost as a whole, and was written then, is worth what its steps are one by one."""
    together, apart = Trust(), Trust()
    for size in sizes:
        together.weigh(size, size)
        for _ in range(size):
            apart.weigh(1, 1)
        assert together.holds is apart.holds
