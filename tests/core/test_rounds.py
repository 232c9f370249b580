"""The rounds of the tenants by themselves: what a tenant has ready are numbers here, of timesteps."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from service.core.rounds import Rounds
from service.core.turn import Lane
from tests.budget import examples

QUANTUM = 16
"""Of rounds in which a batch may have 64 turns and more."""


def add(rounds: Rounds[int], name: str, *lengths: int, lane: Lane = Lane.SHORT) -> None:
    for length in lengths:
        tenant = rounds.enter(name)
        rounds.make_ready(tenant, lane, length)
        tenant.waiting += length


def turn(rounds: Rounds[int], lane: Lane = Lane.SHORT) -> tuple[str, int]:
    """Let who is next take its turns; return their name, and how many timesteps they took."""
    tenant = rounds.next(lane)
    taken = 0
    while tenant.ready[lane] and taken < tenant.credit:
        taken += tenant.ready[lane].popleft()
    rounds.took(lane, taken)
    return str(tenant.name), taken


def test_tenants_take_a_quantum_each_in_turn() -> None:
    rounds: Rounds[int] = Rounds(256)
    add(rounds, "a", *[1] * 40)
    add(rounds, "b", *[1] * 20)
    assert [turn(rounds) for _ in range(5)] == [("a", 16), ("b", 16), ("a", 16), ("b", 4), ("a", 8)]
    assert not rounds.ready[Lane.SHORT]
    assert len(rounds) == 0


def test_in_small_batches_a_quantum_is_a_quarter_of_a_batch_and_at_least_a_timestep() -> None:
    for turns, quantum in ((32, 8), (1, 1)):
        rounds: Rounds[int] = Rounds(turns)
        add(rounds, "a", *[1] * 10)
        add(rounds, "b", 1)
        assert turn(rounds) == ("a", quantum)


def test_who_takes_more_than_its_credit_is_passed_over_until_it_is_worked_off() -> None:
    rounds: Rounds[int] = Rounds(256)
    add(rounds, "a", 40, 1)
    add(rounds, "b", *[1] * 64)
    assert [turn(rounds) for _ in range(6)] == [("a", 40), ("b", 16), ("a", 0), ("b", 16), ("a", 1), ("b", 16)]


def test_who_is_alone_works_a_debt_off_at_once() -> None:
    rounds: Rounds[int] = Rounds(256)
    add(rounds, "a", 512, 1)
    assert [turn(rounds) for _ in range(2)] == [("a", 512), ("a", 1)]


def test_credit_is_not_saved_up_by_who_has_nothing_ready() -> None:
    rounds: Rounds[int] = Rounds(256)
    add(rounds, "a", 1)
    assert turn(rounds) == ("a", 1)
    add(rounds, "a", *[1] * 40)
    add(rounds, "b", 1)
    assert turn(rounds) == ("a", 16)


def test_a_debt_is_remembered_of_who_has_gone_until_nobody_shares() -> None:
    for seconds, owes in ((0.5, True), (1.5, False)):
        rounds: Rounds[int] = Rounds(256)
        add(rounds, "a", 64)
        add(rounds, "b", 1)
        rounds.room(Lane.SHORT, 0.0)
        assert [turn(rounds), turn(rounds)] == [("a", 64), ("b", 1)]
        assert rounds.get("a") is None
        add(rounds, "b", 1)
        rounds.room(Lane.SHORT, seconds)
        turn(rounds)
        add(rounds, "a", 1)
        add(rounds, "b", 1)
        assert turn(rounds) == ("a", 0 if owes else 1)


def test_a_batch_has_less_room_while_several_are_about_and_for_a_second_after() -> None:
    rounds: Rounds[int] = Rounds(256)
    add(rounds, "a", 1)
    assert rounds.room(Lane.SHORT, 0.0) == 256
    add(rounds, "b", 1)
    assert rounds.room(Lane.SHORT, 0.0) == 32
    assert turn(rounds) == ("a", 1)
    assert rounds.room(Lane.SHORT, 0.9) == 32, "another was here a moment ago"
    assert rounds.room(Lane.SHORT, 1.8) == 32, "another than the one before it"
    assert rounds.room(Lane.SHORT, 2.8) == 256


def test_credit_is_one_for_both_lanes() -> None:
    rounds: Rounds[int] = Rounds(256)
    add(rounds, "a", 100, 100, lane=Lane.LONG)
    add(rounds, "a", *[1] * 40)
    add(rounds, "b", *[1] * 40)
    assert turn(rounds, Lane.LONG) == ("a", 100)
    assert turn(rounds) == ("a", 0)
    assert turn(rounds) == ("b", 16)


def test_what_is_to_come_first_does() -> None:
    rounds: Rounds[int] = Rounds(256)
    add(rounds, "a", 20)
    again = rounds.enter("a")
    rounds.make_ready(again, Lane.SHORT, 30, first=True)
    again.waiting += 30
    assert turn(rounds) == ("a", 30)


def test_what_is_cleared_is_forgotten_debts_too() -> None:
    rounds: Rounds[int] = Rounds(256)
    add(rounds, "a", 64)
    add(rounds, "b", 1)
    rounds.room(Lane.SHORT, 0.0)
    assert turn(rounds) == ("a", 64)
    rounds.clear()
    assert (len(rounds), rounds.get("b"), len(rounds.ready[Lane.SHORT])) == (0, None, 0)
    add(rounds, "a", 1)
    add(rounds, "b", 1)
    assert turn(rounds) == ("a", 1)


@given(
    lengths=st.lists(st.integers(1, 64), min_size=2, max_size=5),
    turns=st.integers(1, 400),
)
@examples(60)
def test_who_always_has_something_ready_is_never_far_behind(lengths: list[int], turns: int) -> None:
    """Each tenant's turns have a length of their own, in timesteps; no two come apart by more than those and quanta."""
    rounds: Rounds[int] = Rounds(64)
    names = [str(number) for number in range(len(lengths))]
    for name, length in zip(names, lengths, strict=True):
        add(rounds, name, *[length] * (turns * QUANTUM // length + 2))
    taken: Counter[str] = Counter(dict.fromkeys(names, 0))
    for _ in range(turns):
        name, timesteps = turn(rounds)
        taken[name] += timesteps
    assert max(taken.values()) - min(taken.values()) <= max(lengths) + 2 * QUANTUM
    for name, tenant in ((name, rounds.get(name)) for name in names):
        assert tenant is not None
        assert tenant.waiting == sum(tenant.ready[Lane.SHORT]), f"{name}'s waiting timesteps are true"
