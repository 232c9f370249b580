"""Numbers for sessions, beside a dictionary of keys."""

import gc
import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.core.index import Index
from service.core.session import SessionKey
from tests.engines import Twin


class Crowding(SessionKey):
    """A session whose hash is its id, far to the left: all of them belong into one bucket of a table of any size."""

    def __hash__(self) -> int:
        return int(self.session_id) << 40


KEYS = [SessionKey(tenant, session_id) for tenant in ("one", "other") for session_id in ("a", "b", "c")]
KEYS += [Crowding("one", str(i)) for i in range(20)]


class Indexing(RuleBasedStateMachine):
    """Sessions come and go, and follow one another under the same number."""

    def __init__(self) -> None:
        super().__init__()
        self.index = Index()
        self.held: dict[SessionKey, int] = {}
        self.most = 0

    @precondition(lambda self: len(self.held) < len(KEYS))
    @rule(data=st.data())
    def add(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from([key for key in KEYS if key not in self.held]))
        number = self.index.add(key)
        assert number not in self.held.values()
        self.held[key] = number
        self.most = max(self.most, len(self.held))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        self.index.remove(self.held.pop(data.draw(st.sampled_from(sorted(self.held)))))

    @precondition(lambda self: 0 < len(self.held) < len(KEYS))
    @rule(data=st.data())
    def pass_on(self, data: st.DataObject) -> None:
        number = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        key = data.draw(st.sampled_from([key for key in KEYS if key not in self.held]))
        self.index.pass_on(number, key)
        self.held[key] = number

    @invariant()
    def it_knows_who_is_held_and_nobody_else(self) -> None:
        assert len(self.index) == len(self.held)
        assert [self.index.get(key) for key in KEYS] == [self.held.get(key) for key in KEYS]
        assert self.index.numbers(KEYS).tolist() == [self.held.get(key, -1) for key in KEYS]

    @invariant()
    def numbers_are_used_again(self) -> None:
        assert all(number < self.most for number in self.held.values())


Indexing.TestCase.settings = settings(max_examples=100, stateful_step_count=30)
TestIndexing = Indexing.TestCase


def test_the_collector_has_nothing_to_follow() -> None:
    index = Index()
    gc.collect()
    before = len(gc.get_objects())
    for number in range(1000):
        assert index.add(SessionKey(f"tenant-{number}", "a")) == number
    gc.collect()
    assert len(gc.get_objects()) - before < 50


def test_it_grows_and_knows_everybody_still() -> None:
    index, drawn = Index(), random.Random(1)
    held: dict[SessionKey, int] = {}
    for i in range(20_000):
        key = SessionKey("tenant", str(i))
        held[key] = index.add(key)
        if i % 3 == 0:
            gone = drawn.choice(list(held)[-50:])
            index.remove(held.pop(gone))
            assert index.get(gone) is None
    assert len(set(held.values())) == len(index) == len(held)
    assert index.numbers(list(held)).tolist() == list(held.values())
    assert [index.get(key) for key in held] == list(held.values())
    strangers = [SessionKey("other", key.session_id) for key in held]
    assert set(index.numbers(strangers).tolist()) == {-1}


def test_of_two_with_one_hash_the_first_is_found() -> None:
    index, one, other, third = Index(), Twin("t", "one"), Twin("t", "other"), Twin("t", "third")
    assert [index.add(one), index.add(other)] == [0, 1]
    assert index.numbers([one, other, SessionKey("t", "one")]).tolist() == [0, 0, -1]
    index.remove(0)
    assert (index.get(one), index.get(other), len(index)) == (None, None, 1)
    assert index.add(third) == 0
    index.remove(1)
    assert (index.numbers([other, third]).tolist(), len(index)) == ([0, 0], 1)
