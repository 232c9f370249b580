"""The batch former, by example.

`test_batch_machine.py` tries any interleaving, `test_batch_fairness.py` some who send more than their share.
"""

from service.core.batch import BatchFormer
from service.core.turn import Lane
from tests.core.plain_step import Step


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


def test_while_a_batch_is_written_the_next_begins_for_a_crowd_alone() -> None:
    former: BatchFormer[str, Step] = BatchFormer(max_sessions=8, crowd=4)
    former.add("first", Step(0))
    first = former.take(0.0)
    assert first is not None
    for number, name in enumerate("abc"):
        former.add(name, Step(number))
    assert not former.sent(first)
    assert former.take(0.0) is None
    former.add("first", Step(9))  # whose turn it cannot be yet
    assert former.take(0.0) is None
    former.add("d", Step(3))
    second = former.take(0.0)
    assert second is not None
    assert [turn.key for turn in second.turns] == ["a", "b", "c", "d"]
    for number, name in enumerate("efgh"):
        former.add(name, Step(number))
    assert not former.sent(second), "two are written, and that is enough"
    former.done(first)
    third = former.take(0.0)
    assert third is not None
    assert [turn.key for turn in third.turns] == ["e", "f", "g", "h", "first"]


def test_where_batches_are_held_to_fewer_sessions_none_begins_early() -> None:
    former: BatchFormer[str, Step] = BatchFormer(max_sessions=8, crowd=2)
    for number in range(8):
        former.add(str(number), Step(number))
    first = former.take(0.0, 4)
    assert first is not None
    assert former.sent(first)
    assert former.take(0.0, 4) is None
    assert former.take(0.0) is not None


def test_a_batch_may_be_held_to_fewer_sessions() -> None:
    former: BatchFormer[str, Step] = BatchFormer(max_sessions=3)
    for number in range(8):
        former.add(str(number), Step(number))
    sizes = []
    for most in (2, 9, None):
        batch = former.take(0.0, most)
        assert batch is not None
        former.done(batch)
        sizes.append(batch.sessions)
    assert sizes == [2, 3, 3]


def test_what_is_abandoned_is_handed_over_and_gone() -> None:
    former: BatchFormer[str, Step] = BatchFormer(max_sessions=8)
    for number in range(4):
        former.add("ab"[number % 2], Step(number))
    assert {step.number for step in former.abandon()} == {0, 1, 2, 3}
    assert former.idle
    assert former.waiting == 0
    assert former.take(0.0) is None
