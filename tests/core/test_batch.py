"""The batch former, by example.

`test_batch_machine.py` tries any interleaving, `test_batch_fairness.py` some who send more than their share.
"""

from service.core.batch import BatchFormer
from service.core.turn import Batch, Group, Lane, Turn
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


ABC = ["a", "b", "c"]


class Timesteps(Group[str, Step]):
    """A group of numbered steps: of the first session one less than of the second, and so on."""

    def __init__(self, first: int) -> None:
        super().__init__(ABC, 99.0)
        self._steps = [Step(first + i, group=first) for i in range(len(ABC))]

    def step(self, i: int) -> Step:
        return self._steps[i]


def a_former(**options: int) -> BatchFormer[str, Step]:
    return BatchFormer(**{"max_sessions": 8, "crowd": 3} | options)


def taken(former: BatchFormer[str, Step]) -> Batch[str, Step]:
    batch = former.take(0.0)
    assert batch is not None
    return batch


def numbers(batch: Batch[str, Step]) -> dict[str, list[int]]:
    """Return the numbers of a batch's steps, by session."""
    turns = [*batch.turns, *(turn for part in batch.parts for turn in part.turns())]
    return {turn.key: [step.number for step in turn.steps] for turn in turns}


def test_a_group_of_the_same_sessions_begins_while_the_last_one_is_written() -> None:
    former = a_former()
    for first in (10, 20, 30):
        former.add_group(Timesteps(first))
    former.add("b", Step(99))
    first = taken(former)
    assert former.take(0.0) is None
    assert former.sent(first)
    second = taken(former)
    assert second.before is first
    assert not former.sent(second), "two are written, and that is enough"
    former.done(first)
    assert second.before is None
    third = taken(former)
    assert [numbers(batch) for batch in (first, second, third)] == [
        {"a": [n], "b": [n + 1], "c": [n + 2]} for n in (10, 20, 30)
    ]
    former.sent(third)
    former.done(second)
    assert former.take(0.0) is None, "who came by themselves wait for the last of them"
    former.done(third)
    assert numbers(taken(former)) == {"b": [99]}


def test_where_most_of_a_batch_is_followed_the_next_begins_without_a_crowd() -> None:
    for others in (3, 4):
        former = a_former(crowd=8)
        former.add_group(Timesteps(10))
        for number in range(others):
            former.add(str(number), Step(number))
        first = taken(former)
        former.add_group(Timesteps(20))
        assert former.sent(first) == (others == 3)
        assert (former.take(0.0) is not None) == (others == 3)


def test_groups_of_the_same_sessions_follow_one_another_even_where_the_first_stands_in_lines() -> None:
    former = a_former()
    former.add("b", Step(1))
    alone = taken(former)
    for first in (10, 20, 30):
        former.add_group(Timesteps(first))
    former.done(alone)
    batches, behind = [], []
    for _ in range(3):
        batch = taken(former)
        former.sent(batch)
        behind.append(batch.before)
        batches.append(batch)
        if batch.before is not None:
            former.done(batch.before)
    assert [numbers(batch) for batch in batches] == [{"a": [n], "b": [n + 1], "c": [n + 2]} for n in (10, 20, 30)]
    assert behind == [None, *batches[:2]]


def test_what_has_to_be_made_again_comes_before_what_has_begun_already() -> None:
    former = a_former()
    for number in (10, 20, 30):
        former.add_group(Timesteps(number))
    first = taken(former)
    former.sent(first)
    second = taken(former)
    former.sent(second)
    former.done(first, [Turn("b", [Step(11)])])
    assert former.take(0.0) is None, "the third may not overtake it"
    former.done(second, [Turn("b", [Step(21)]), Turn("c", [Step(22)])])
    assert numbers(taken(former)) == {"b": [11, 21], "c": [22]}


def test_what_is_known_to_have_to_be_made_again_is_not_overtaken() -> None:
    former = a_former()
    former.add_group(Timesteps(10))
    former.add_group(Timesteps(20))
    first = taken(former)
    former.sent(first)
    first.again.append(Turn("a", [Step(10)]))
    assert former.take(0.0) is None
    former.done(first, first.again)
    again = taken(former)
    assert numbers(again) == {"a": [10]}
    former.done(again)
    assert numbers(taken(former)) == {"a": [20], "b": [21], "c": [22]}


def test_what_has_begun_already_may_end_first() -> None:
    former = a_former()
    former.add_group(Timesteps(10))
    former.add_group(Timesteps(20))
    first = taken(former)
    former.sent(first)
    second = taken(former)
    former.done(second, [Turn("a", [Step(20)])])
    former.add_group(Timesteps(30))
    assert former.take(0.0) is None
    former.done(first, [Turn("a", [Step(10)])])
    assert numbers(taken(former)) == {"a": [10, 20]}


def test_a_group_that_is_taken_in_parts_is_not_overtaken() -> None:
    former = a_former(max_sessions=2, crowd=2)
    former.add_group(Timesteps(10))
    former.add_group(Timesteps(20))
    first = taken(former)
    former.sent(first)
    assert former.take(0.0) is None, "one session is less than a crowd"
    former.done(first)
    rest = taken(former)
    assert [numbers(batch) for batch in (first, rest)] == [{"a": [10], "b": [11]}, {"c": [12]}]
    former.done(rest)
    assert numbers(taken(former)) == {"a": [20], "b": [21]}


def test_one_that_does_not_fit_as_a_whole_waits_for_the_last_one_to_end() -> None:
    former = a_former(max_sessions=4, crowd=2)
    former.add_group(Timesteps(10))
    former.add_group(Timesteps(20))
    first = taken(former)
    for number, name in enumerate("xy"):
        former.add(name, Step(number))
    former.sent(first)
    assert numbers(taken(former)) == {"x": [0], "y": [1]}
    former.done(first)
    former.add_group(Timesteps(30))
    assert former.waiting == 6


def test_what_is_owed_is_handed_over_where_all_is_abandoned() -> None:
    former = a_former()
    former.add_group(Timesteps(10))
    former.add_group(Timesteps(20))
    first = taken(former)
    former.sent(first)
    taken(former)
    former.done(first, [Turn("b", [Step(11)])])
    assert [step.number for step in former.abandon()] == [11]
