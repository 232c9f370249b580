"""The batch former against a model of what it promises, under any interleaving."""

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.core.batch import Batch, BatchFormer, Lane

KEYS = "abcde"
TENANT = {"a": "x", "b": "x", "c": "x", "d": "y", "e": "z"}
MAX_SESSIONS = 3
MAX_TURN = 8


@dataclass(frozen=True)
class Step:
    number: int
    length: int = 1
    deadline: float = float("inf")
    alone: bool = False


@dataclass
class Promise:
    """What a former must do, written down without any of its cleverness."""

    waiting: dict[str, list[Step]] = field(default_factory=lambda: {key: [] for key in KEYS})
    in_flight: list[Batch[str, Step]] = field(default_factory=list)

    @property
    def busy(self) -> set[str]:
        return {turn.key for batch in self.in_flight for turn in batch.turns}


class Former(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.former: BatchFormer[str, Step] = BatchFormer(
            max_sessions=MAX_SESSIONS, max_turn=MAX_TURN, long_turn=MAX_TURN, tenant_of=TENANT.__getitem__
        )
        self.promise = Promise()
        self.count = 0
        self.now = 0.0

    @rule(
        key=st.sampled_from(KEYS),
        length=st.sampled_from([1, 1, 1, 3, 20]),
        patience=st.sampled_from([2.0, 99.0]),
        alone=st.sampled_from([False, False, True]),
    )
    def add(self, key: str, length: int, patience: float, alone: bool) -> None:
        self.count += 1
        step = Step(self.count, length, self.now + patience, alone)
        self.former.add(key, step)
        self.promise.waiting[key].append(step)

    @rule()
    def time_passes(self) -> None:
        self.now += 1

    @rule()
    def take(self) -> None:
        ready = {key for key, steps in self.promise.waiting.items() if steps} - self.promise.busy
        batch = self.former.take(self.now)
        if batch is None:
            lanes = {batch.lane for batch in self.promise.in_flight}
            assert all(self._lane(key) in lanes for key in ready), "something was ready and a lane was free"
            return
        keys = [turn.key for turn in batch.turns]
        assert len(set(keys)) == len(keys) <= MAX_SESSIONS
        assert set(keys) <= ready, "at most one turn of a session is in flight"
        assert all(self._lane(key) is batch.lane for key in keys)
        taken = {step for turn in batch.turns for step in turn.steps}
        for turn in batch.turns:
            self._check_turn(turn.key, turn.steps, set(batch.expired))
        for key in ready - set(keys):
            waiting = self.promise.waiting[key]
            self.promise.waiting[key] = [step for step in waiting if step not in batch.expired]
            assert not self.promise.waiting[key] or waiting == self.promise.waiting[key], (
                "who has a step to run has a turn"
            )
        assert {step for step in batch.expired if step.deadline >= self.now} == set()
        assert {step for step in taken if step.deadline < self.now} == set()
        self.promise.in_flight.append(batch)

    def _check_turn(self, key: str, steps: list[Step], expired: set[Step]) -> None:
        waiting = self.promise.waiting[key]
        gone = [step for step in waiting if step in expired or step in steps]
        assert gone == waiting[: len(gone)], "steps leave in the order in which they came"
        assert [step for step in gone if step not in expired] == steps
        assert steps, "a turn is for steps that can be run"
        assert len(steps) == 1 or sum(step.length for step in steps) <= MAX_TURN
        assert len(steps) == 1 or not any(step.alone for step in steps)
        self.promise.waiting[key] = waiting[len(gone) :]

    @precondition(lambda self: self.promise.in_flight)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from(self.promise.in_flight))
        again = [turn for turn in batch.turns if turn.steps and data.draw(st.booleans())]
        self.promise.in_flight.remove(batch)
        for turn in again:
            self.promise.waiting[turn.key] = turn.steps + self.promise.waiting[turn.key]
        self.former.done(batch, again)

    @invariant()
    def it_counts_what_waits(self) -> None:
        waiting = [step for steps in self.promise.waiting.values() for step in steps]
        assert self.former.waiting == sum(step.length for step in waiting)
        assert self.former.idle == (not waiting and not self.promise.in_flight)
        for tenant in "xyz":
            of_tenant = [step for key, steps in self.promise.waiting.items() if TENANT[key] == tenant for step in steps]
            assert self.former.waiting_of(tenant) == sum(step.length for step in of_tenant)

    def _lane(self, key: str) -> Lane:
        steps = self.promise.waiting[key]
        return Lane.LONG if steps and steps[0].length > MAX_TURN else Lane.SHORT

    def teardown(self) -> None:
        for batch in self.promise.in_flight:
            self.former.done(batch)
        assert sorted(self.former.steps(), key=lambda step: step.number) == sorted(
            (step for steps in self.promise.waiting.values() for step in steps), key=lambda step: step.number
        )
        for _ in range(2 * self.count + 2):
            if (batch := self.former.take(self.now)) is not None:
                self.former.done(batch)
        assert self.former.idle, "whatever was added comes out"


TestFormer = Former.TestCase
TestFormer.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


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
