"""The batch former against a model of what it promises, under any interleaving.

The model knows a session's waiting steps, what is in flight and what has ended, and none of the former's cleverness.
It holds the former to five promises: a session's steps keep their order and at most one turn of it is in flight, or
two where the first is only being written and both are of groups of the same sessions; of each lane one batch is run at
a time, and the next one begins before it has ended only for a crowd; nobody starves; nothing is lost or doubled;
`waiting` and `idle` are true.
"""

from collections import Counter
from collections.abc import Collection
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
ROSTERS = [KEYS[:2], KEYS[:3], KEYS[1:3], KEYS[2:3], KEYS[3:5], KEYS[5:]]
"""Sessions that come as the same object whenever they come."""
MAX_SESSIONS = CROWD = 2
MAX_TURN = 8
LONGEST = 20


class Steps(Group[SessionKey, Step]):
    """A group that was made of steps."""

    def __init__(self, keys: list[SessionKey], steps: dict[SessionKey, Step], deadline: float) -> None:
        super().__init__(keys, deadline)
        self._steps = list(steps.values())

    def step(self, i: int) -> Step:
        return self._steps[i]


def turns_of(batch: Batch[SessionKey, Step]) -> list[Turn[SessionKey, Step]]:
    """Return a batch's turns, and those of its groups' sessions."""
    parts = [Turn(key, [step]) for part in batch.parts for key, step in zip(part.keys, part.steps(), strict=True)]
    return batch.turns + parts


def everybody(batch: Batch[SessionKey, Step]) -> list[SessionKey]:
    parts = [key for part in (*batch.parts, *batch.late) for key in part.keys]
    return [turn.key for turn in batch.turns] + parts + batch.idle


class Former(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.former: BatchFormer[SessionKey, Step] = BatchFormer(
            max_sessions=MAX_SESSIONS, max_turn=MAX_TURN, long_turn=MAX_TURN, tenant_of=attrgetter("tenant")
        )
        self.numbers = count(1)
        self.groups = count(1)
        self.waiting: dict[SessionKey, list[Step]] = {key: [] for key in KEYS}
        self.roster_of: dict[int, list[SessionKey]] = {}
        self.in_flight: list[Batch[SessionKey, Step]] = []
        self.owed: dict[Batch[SessionKey, Step], dict[SessionKey, list[Step]]] = {}
        self.left: dict[Batch[SessionKey, Step], list[Turn[SessionKey, Step]]] = {}
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
        self._add_group(data.draw(st.lists(st.sampled_from(own), min_size=1, unique=True)), patience)

    @rule(roster=st.sampled_from(range(len(ROSTERS))), patience=st.sampled_from([2.0, 99.0, 99.0]))
    def add_group_again(self, roster: int, patience: float) -> None:
        self._add_group(ROSTERS[roster], patience)

    def _add_group(self, keys: list[SessionKey], patience: float) -> None:
        name, deadline = next(self.groups), self.now + patience
        steps = {key: Step(next(self.numbers), deadline=deadline, group=name) for key in keys}
        self.former.add_group(Steps(keys, steps, deadline))
        for key, step in steps.items():
            self.waiting[key].append(step)
            self.roster_of[name] = keys

    @rule()
    def time_passes(self) -> None:
        self.now += 1

    @rule()
    def take(self) -> None:
        ready = {key: self._lane(key) for key in KEYS if self._is_ready(key)}
        following = {key: Lane.SHORT for key in KEYS if self._may_follow(key)}
        places = {lane for lane in Lane if self._has_place(lane)}
        batch = self.former.take(self.now)
        if batch is None:
            assert places.isdisjoint(ready.values()), "something was ready, a lane free"
            return
        assert batch.lane in places or self._has_place(batch.lane, following)
        turns = turns_of(batch)
        keys = [turn.key for turn in turns]
        assert batch.sessions == len(keys)
        assert len(set(keys)) == len(keys) <= MAX_SESSIONS
        for key in keys:
            assert batch.lane in (ready.get(key), following.get(key)), "one turn of a session, and in its lane"
        assert all(step.deadline < self.now for step in batch.expired), "who is in time is not given up"
        self._forget(batch.expired)
        for turn in turns:
            self._check_turn(turn)
        self._check_fairness({key for key, lane in ready.items() if lane is batch.lane} - set(keys))
        self.ended.update(batch.expired)
        self.in_flight.append(batch)

    @precondition(lambda self: self._unended())
    @rule(data=st.data())
    def sent(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from(self._unended()))
        may_begin = self.former.sent(batch)
        assert may_begin or not self._has_place(batch.lane)
        assert not may_begin or self._has_place(batch.lane, {key for key in KEYS if self._may_follow(key)})

    @precondition(lambda self: self._unended())
    @rule(data=st.data())
    def learn(self, data: st.DataObject) -> None:
        """Turn out to have to be made again, before the end of its batch."""
        batch = data.draw(st.sampled_from(self._unended()))
        known = {turn.key for turn in batch.again}
        if turns := [turn for turn in turns_of(batch) if turn.key not in known]:
            batch.again.append(data.draw(st.sampled_from(turns)))

    @precondition(lambda self: self._unended())
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from(self._unended()))
        known = {turn.key for turn in batch.again}
        again = []
        for turn in turns_of(batch):
            # Of a turn that is made again, some steps may have been answered: those of clients that left.
            repeated = turn.key in known or data.draw(st.booleans())
            left = [step for step in turn.steps if data.draw(st.booleans())] if repeated else []
            self.ended.update(step for step in turn.steps if step not in left)
            if left := [replace(step, group=0) for step in left]:
                again.append(Turn(turn.key, left))
        before, following = batch.before, batch.next
        self.former.done(batch, again)
        if before is not None:
            self.left[batch] = again  # of it nothing is known before that has ended
            return
        self._end(batch, again, following)
        if following in self.left:
            self._end(following, self.left.pop(following), None)

    def _end(
        self,
        batch: Batch[SessionKey, Step],
        again: list[Turn[SessionKey, Step]],
        following: Batch[SessionKey, Step] | None,
    ) -> None:
        self.in_flight.remove(batch)
        steps = {turn.key: list(turn.steps) for turn in again}
        for key, owed in self.owed.pop(batch, {}).items():
            steps[key] = owed + steps.get(key, [])
        self.repeated += len(steps)
        then = set() if following is None else {turn.key for turn in turns_of(following)}
        for key, left in steps.items():
            if following is not None and key in then:
                self.owed.setdefault(following, {})[key] = left
            else:
                self.waiting[key] = left + self.waiting[key]
                self.last_taken[key] = left[0].number - 1

    def _unended(self) -> list[Batch[SessionKey, Step]]:
        return [batch for batch in self.in_flight if batch not in self.left]

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

    def _has_place(self, lane: Lane, following: Collection[SessionKey] = ()) -> bool:
        before = [batch for batch in self.in_flight if batch.lane is lane]
        ready = {key for key in KEYS if self._is_ready(key) and self._lane(key) is lane}.union(following)
        if not before:
            return True
        followed = 2 * len(following) >= max(before[0].sessions, 1)
        return len(before) == 1 and before[0].sent and (followed or len(ready) >= CROWD)

    def _busy(self) -> set[SessionKey]:
        return {key for batch in self.in_flight for key in everybody(batch)}

    def _may_follow(self, key: SessionKey) -> bool:
        """Whether a session may take its turn while that before is being written: all of its group do, behind one."""
        group = self.waiting[key][0].group if self.waiting[key] else 0
        if not group or key not in self._busy():
            return False
        keys = self.roster_of[group]
        if not all(self.waiting[other] and self.waiting[other][0].group == group for other in keys):
            return False
        return any(
            batch.sent and not batch.again and batch not in self.owed and len(part) == len(keys)
            for batch in self.in_flight
            for part in (*batch.parts, *batch.late)
            if part.group.keys is keys
        )

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
        for batch in reversed(self._unended()):
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
