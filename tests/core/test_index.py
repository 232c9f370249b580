"""Numbers for sessions, beside a dictionary of keys."""

import gc

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.core.index import Index
from service.core.session import SessionKey

KEYS = [SessionKey(tenant, session_id) for tenant in ("one", "other") for session_id in ("a", "b", "c")]


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
