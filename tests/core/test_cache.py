"""The records that a process remembers: what is put comes back bit for bit, and who was untouched for longest goes."""

from collections import OrderedDict

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from service.core.cache import RecordCache
from service.core.columns import Layout
from service.core.record import encode
from service.core.session import ModelRef, Session, SessionKey
from service.core.spec import Axis, Feature, ModelSpec, Output, State
from tests.budget import examples

SIZE = 6
KEYS = [SessionKey("t", str(i)) for i in range(9)]


def layout(name: str, units: int) -> Layout:
    spec = ModelSpec(
        features=(Feature("x"),),
        outputs=(Output("y", "y", axes=(Axis("h", (1, 2)),)),),
        states=(State("h", "h", "next_h", (units,), 0),),
    )
    return Layout(ModelRef(name, "1", b"digest__"), spec)


LAYOUTS = [layout("small", 3), layout("large", 5)]


def record(layout: Layout, step: int, value: float) -> bytes:
    """Return a record that has had `step` timesteps; before the first it has no outputs."""
    state = np.full(layout.spec.state_size, value, np.float32).tobytes()
    return encode(Session(layout.ref, 1, step, 2, 3, 60, state, bytes(8) if step else b""))


class Cache(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.cache = RecordCache(SIZE)
        self.known: OrderedDict[SessionKey, tuple[bytes, Layout]] = OrderedDict()

    @rule(key=st.sampled_from(KEYS), layout=st.sampled_from(LAYOUTS), step=st.integers(0, 2), value=st.floats(0, 9))
    def put(self, key: SessionKey, layout: Layout, step: int, value: float) -> None:
        self.cache.put(key, record(layout, step, value), layout)
        self.known[key] = record(layout, step, value), layout
        self._forget()

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, unique=True), layout=st.sampled_from(LAYOUTS))
    def put_rows(self, keys: list[SessionKey], layout: Layout) -> None:
        records = [record(layout, 1 + i, i / 3) for i in range(len(keys))]
        self.cache.put_rows(keys, layout, np.array([list(each) for each in records], np.uint8))
        for key, each in zip(keys, records, strict=True):
            self.known[key] = each, layout
        self._forget()

    @rule(key=st.sampled_from(KEYS))
    def get(self, key: SessionKey) -> None:
        assert self.cache.get(key) == self.known.get(key)
        if key in self.known:
            self.known.move_to_end(key)

    @rule(keys=st.lists(st.sampled_from(KEYS), unique=True))
    def find(self, keys: list[SessionKey]) -> None:
        crowded = len(self.known) > SIZE // 2
        for key, place in zip(keys, self.cache.find(keys), strict=True):
            if key not in self.known:
                assert place is None
                continue
            assert place is not None
            slab, row = place
            held, layout = self.known[key]
            assert slab.layout is layout
            assert slab.rows[row].tobytes() == layout.filled(held)
            if crowded:
                self.known.move_to_end(key)

    @rule(key=st.sampled_from(KEYS))
    def drop(self, key: SessionKey) -> None:
        self.cache.drop(key)
        self.known.pop(key, None)

    @invariant()
    def it_holds_no_more_than_it_may(self) -> None:
        assert len(self.cache) == len(self.known) <= SIZE

    def _forget(self) -> None:
        while len(self.known) > SIZE:
            self.known.popitem(last=False)


TestCache = Cache.TestCase
TestCache.settings = examples(100)
