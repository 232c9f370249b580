"""The batch former, by example; `test_batch_machine.py` tries any interleaving."""

from dataclasses import dataclass

from service.core.batch import BatchFormer
from service.core.turn import Lane


@dataclass(frozen=True)
class Step:
    number: int
    length: int = 1
    deadline: float = float("inf")
    alone: bool = False


def test_a_session_with_much_to_do_waits_its_turn() -> None:
    former: BatchFormer[str, Step] = BatchFormer(max_sessions=1, max_turn=1)
    for number in range(3):
        former.add("greedy", Step(number))
    former.add("modest", Step(9))
    order = []
    while (batch := former.take(0.0)) is not None:
        order += [turn.key for turn in batch.turns]
        former.done(batch)
    assert order == ["greedy", "modest", "greedy", "greedy"]


def test_a_long_chunk_does_not_hold_up_single_steps() -> None:
    former: BatchFormer[str, Step] = BatchFormer(max_sessions=8)
    former.add("chunk", Step(1, length=500))
    former.add("single", Step(2))
    first, second = former.take(0.0), former.take(0.0)
    assert first is not None
    assert second is not None
    assert {first.turns[0].key, second.turns[0].key} == {"chunk", "single"}
    assert former.take(0.0) is None


def test_a_long_chunk_behind_a_step_that_is_too_late_keeps_to_its_lane() -> None:
    former: BatchFormer[str, Step] = BatchFormer(max_sessions=4, long_turn=8)
    former.add("a", Step(1, deadline=1.0))
    former.add("a", Step(2, length=100))
    late = former.take(2.0)
    assert late is not None
    assert ([step.number for step in late.expired], late.turns) == ([1], [])
    former.done(late)
    chunk = former.take(2.0)
    assert chunk is not None
    assert (chunk.lane, [step.number for step in chunk.turns[0].steps]) == (Lane.LONG, [2])


def test_what_is_abandoned_is_handed_over_and_gone() -> None:
    former: BatchFormer[str, Step] = BatchFormer(max_sessions=8)
    for number in range(4):
        former.add("ab"[number % 2], Step(number))
    assert {step.number for step in former.abandon()} == {0, 1, 2, 3}
    assert former.idle
    assert former.waiting == 0
    assert former.take(0.0) is None


def of_tenants(**options: int) -> BatchFormer[str, Step]:
    """A former of sessions that are called for their tenant's first letter and a number."""
    return BatchFormer(tenant_of=lambda key: key[0], **options)


def taken(former: BatchFormer[str, Step], now: float = 0.0) -> list[str]:
    batch = former.take(now)
    assert batch is not None
    former.done(batch)
    return [turn.key for turn in batch.turns]


def test_a_tenant_that_floods_takes_no_place_from_its_neighbour() -> None:
    former = of_tenants(max_sessions=16, max_turn=4)
    for number in range(100):
        former.add(f"a{number}", Step(number))
    for number in range(5):
        former.add(f"b{number}", Step(number))
    assert [key for key in taken(former) if key[0] == "b"] == [f"b{number}" for number in range(5)]


def test_tenants_share_in_timesteps_and_not_in_turns() -> None:
    former = of_tenants(max_sessions=4, max_turn=4)
    for session in range(8):
        former.add(f"a{session}", Step(0, length=4))
    for session in range(32):
        former.add(f"b{session}", Step(0))
    order = [key[0] for _ in range(10) for key in taken(former)]
    assert order[:20] == ["a", *"bbbb"] * 4


def test_a_tenant_with_nothing_else_to_do_gets_all_that_is_left() -> None:
    former = of_tenants(max_sessions=16, max_turn=4)
    for number in range(40):
        former.add(f"a{number}", Step(number))
    former.add("b0", Step(0))
    assert len(taken(former)) == 16


def test_batches_are_smaller_while_tenants_share() -> None:
    former = of_tenants(max_sessions=256)
    for number in range(1000):
        former.add(f"a{number}", Step(number))
    assert len(taken(former)) == 256
    former.add("b0", Step(0))
    assert len(taken(former)) == 64
    assert len(taken(former, 0.5)) == 64, "the neighbour may come again at any moment"
    assert len(taken(former, 1.6)) == 256


def test_the_waiting_timesteps_of_each_tenant_are_known() -> None:
    former = of_tenants(max_sessions=2)
    for number in range(3):
        former.add(f"a{number}", Step(number, length=2))
    former.add("b0", Step(9))
    assert (former.waiting_of("a"), former.waiting_of("b"), former.waiting_of("c")) == (6, 1, 0)
    assert (former.tenants("a"), former.tenants("c")) == (2, 3)
    batch = former.take(0.0)
    assert batch is not None
    assert (former.waiting_of("a"), former.waiting) == (4, 4)
    former.done(batch, again=batch.turns)
    assert (former.waiting_of("a"), former.waiting) == (6, 7)
    former.abandon()
    assert (former.waiting_of("a"), former.tenants("a")) == (0, 1)
