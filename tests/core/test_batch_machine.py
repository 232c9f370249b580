"""The batch former against a model of what it promises, under any interleaving.

The model knows a session's waiting steps, what is in flight and what has ended, and none of the former's cleverness.
It holds the former to five promises: a session's steps keep their order and at most one turn of it is in flight; of
each lane one batch is run at a time, and the next one begins before it has ended only for a crowd; nobody starves;
nothing is lost or doubled; `waiting` and `idle` are true.
"""

from collections import Counter
from dataclasses import replace
from itertools import count
from operator import attrgetter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.core.batch import BatchFormer
from service.core.session import SessionKey
from service.core.turn import Batch, Group, Lane, Turn
from tests.budget import examples
from tests.core.plain_step import Step

KEYS = [SessionKey(tenant, name) for tenant, name in ("aa", "ab", "ac", "ba", "bb", "ca")]
TENANTS = {key.tenant for key in KEYS}
MAX_SESSIONS = CROWD = 2
MAX_TURN = 8
LONGEST = 20


class Steps(Group[SessionKey, Step]):
    """A group that was made of steps."""

    def __init__(self, steps: dict[SessionKey, Step], deadline: float) -> None:
        super().__init__(list(steps), deadline)
        self._steps = list(steps.values())

    def step(self, i: int) -> Step:
        return self._steps[i]


def turns_of(batch: Batch[SessionKey, Step]) -> list[Turn[SessionKey, Step]]:
    """Return a batch's turns, and those of its groups' sessions."""
    parts = [Turn(key, [step]) for part in batch.parts for key, step in zip(part.keys, part.steps(), strict=True)]
    return batch.turns + parts


class Former(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.former: BatchFormer[SessionKey, Step] = BatchFormer(
            max_sessions=MAX_SESSIONS, max_turn=MAX_TURN, long_turn=MAX_TURN, tenant_of=attrgetter("tenant")
        )
        self.numbers = count(1)
        self.groups = count(1)
        self.waiting: dict[SessionKey, list[Step]] = {key: [] for key in KEYS}
        self.in_flight: list[Batch[SessionKey, Step]] = []
        self.ended: Counter[Step] = Counter()
        self.last_taken: Counter[SessionKey] = Counter()
        self.passed_over: Counter[SessionKey] = Counter()
        self.repeated = 0
        self.now = 0.0

    # What happens to it

    @rule(
        key=st.sampled_from(KEYS),
        length=st.sampled_from([1, 1, 1, 3, LONGEST]),
        patience=st.sampled_from([2.0, 99.0]),
        alone=st.sampled_from([False, False, True]),
    )
    def add(self, key: SessionKey, length: int, patience: float, alone: bool) -> None:
        step = Step(next(self.numbers), length, self.now + patience, alone)
        self.former.add(key, step)
        self.waiting[key].append(step)

    @rule(tenant=st.sampled_from(sorted(TENANTS)), data=st.data(), patience=st.sampled_from([2.0, 99.0]))
    def add_group(self, tenant: str, data: st.DataObject, patience: float) -> None:
        own = [key for key in KEYS if key.tenant == tenant]
        keys = data.draw(st.lists(st.sampled_from(own), min_size=1, unique=True))
        name, deadline = next(self.groups), self.now + patience
        steps = {key: Step(next(self.numbers), deadline=deadline, group=name) for key in keys}
        self.former.add_group(Steps(steps, deadline))
        for key, step in steps.items():
            self.waiting[key].append(step)

    @rule()
    def time_passes(self) -> None:
        self.now += 1

    @rule()
    def take(self) -> None:
        ready = {key: self._lane(key) for key in KEYS if self._is_ready(key)}
        places = {lane for lane in Lane if self._has_place(lane)}
        batch = self.former.take(self.now)
        if batch is None:
            assert places.isdisjoint(ready.values()), "something was ready, a lane free"
            return
        assert batch.lane in places
        turns = turns_of(batch)
        keys = [turn.key for turn in turns]
        assert batch.sessions == len(keys)
        assert len(set(keys)) == len(keys) <= MAX_SESSIONS
        assert all(ready.get(key) is batch.lane for key in keys), "one turn of a session, and in its lane"
        assert all(step.deadline < self.now for step in batch.expired), "who is in time is not given up"
        self._forget(batch.expired)
        for turn in turns:
            self._check_turn(turn)
        self._check_fairness({key for key, lane in ready.items() if lane is batch.lane} - set(keys))
        self.ended.update(batch.expired)
        self.in_flight.append(batch)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def sent(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from(self.in_flight))
        assert self.former.sent(batch) == self._has_place(batch.lane)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from(self.in_flight))
        again = []
        for turn in turns_of(batch):
            # Of a turn that is made again, some steps may have been answered: those of clients that left.
            left = [step for step in turn.steps if data.draw(st.booleans())] if data.draw(st.booleans()) else []
            self.ended.update(step for step in turn.steps if step not in left)
            left = [replace(step, group=0) for step in left]
            if left:
                again.append(Turn(turn.key, left))
                self.waiting[turn.key] = left + self.waiting[turn.key]
                self.last_taken[turn.key] = left[0].number - 1
        self.repeated += len(again)
        self.in_flight.remove(batch)
        self.former.done(batch, again)

    @precondition(lambda self: not self.in_flight)
    @rule()
    def abandon(self) -> None:
        given_up = self.former.abandon()
        assert sorted(given_up, key=_number) == self._all_waiting()
        self._forget(given_up)
        self.ended.update(given_up)

    # What it promises

    @invariant()
    def it_counts_what_waits(self) -> None:
        assert self.former.waiting == sum(step.length for step in self._all_waiting())
        assert self.former.idle == (not self._all_waiting() and not self.in_flight)
        assert sorted(self.former.steps(), key=_number) == [step for step in self._all_waiting() if not step.group]
        assert len(self.former.groups()) == len({step.group for step in self._all_waiting()} - {0})
        for tenant in TENANTS:
            own = [step for key, steps in self.waiting.items() if key.tenant == tenant for step in steps]
            assert self.former.waiting_of(tenant) == sum(step.length for step in own)

    def _check_turn(self, turn: Turn[SessionKey, Step]) -> None:
        waiting = self.waiting[turn.key]
        assert turn.steps, "a turn is for steps that can be run"
        assert turn.steps == waiting[: len(turn.steps)], "steps leave in the order in which they came"
        assert turn.steps[0].number > self.last_taken[turn.key]
        assert all(step.deadline >= self.now for step in turn.steps)
        assert len(turn.steps) == 1 or sum(step.length for step in turn.steps) <= MAX_TURN
        assert len(turn.steps) == 1 or not any(step.alone or step.group for step in turn.steps)
        self.last_taken[turn.key] = turn.steps[-1].number
        self.waiting[turn.key] = waiting[len(turn.steps) :]
        self.passed_over[turn.key] = 0

    def _check_fairness(self, left_out: set[SessionKey]) -> None:
        """Who is ready and left out of a batch of its lane comes soon, however the others press.

        All others, once for each tenant, and the turns that are made again may be before it, and what its tenant has
        taken ahead of its share: whatever the order is in which tenants and their sessions take turns, more than that
        is starving.
        """
        for key in left_out:
            self.passed_over[key] += 1
            assert self.passed_over[key] <= len(KEYS) * len(TENANTS) + LONGEST + self.repeated, f"{key} starves"

    def _has_place(self, lane: Lane) -> bool:
        before = [batch for batch in self.in_flight if batch.lane is lane]
        ready = sum(self._is_ready(key) and self._lane(key) is lane for key in KEYS)
        return not before or (len(before) == 1 and before[0].sent and ready >= CROWD)

    def _busy(self) -> set[SessionKey]:
        return {key for batch in self.in_flight for key in batch.everybody()}

    def _is_ready(self, key: SessionKey) -> bool:
        """Whether a session is to take its turn: as one of a group, when that is next for all that are left of it."""
        if not self.waiting[key] or key in self._busy():
            return False
        group = self.waiting[key][0].group
        others = [other for other, steps in self.waiting.items() if group and group in {step.group for step in steps}]
        return all(self.waiting[other][0].group == group and other not in self._busy() for other in others)

    def _lane(self, key: SessionKey) -> Lane:
        return Lane.LONG if self.waiting[key][0].length > MAX_TURN else Lane.SHORT

    def _all_waiting(self) -> list[Step]:
        return sorted((step for steps in self.waiting.values() for step in steps), key=_number)

    def _forget(self, steps: list[Step]) -> None:
        for key, waiting in self.waiting.items():
            self.waiting[key] = [step for step in waiting if step not in steps]

    def teardown(self) -> None:
        while self.in_flight:
            batch = self.in_flight.pop()
            self.ended.update(step for turn in turns_of(batch) for step in turn.steps)
            self.former.done(batch)
        while (batch := self.former.take(self.now)) is not None:
            self.ended.update([*batch.expired, *(step for turn in turns_of(batch) for step in turn.steps)])
            self.former.done(batch)
        assert self.former.idle, "whatever was added comes out"
        assert sorted(step.number for step in self.ended.elements()) == list(range(1, next(self.numbers))), (
            "every step ended, and once"
        )


def _number(step: Step) -> int:
    return step.number


TestFormer = Former.TestCase
TestFormer.settings = examples(200, steps=60)
