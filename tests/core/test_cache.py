"""The records that a process remembers: what is put comes back bit for bit, in so much memory; who was untouched for
longest goes."""

import gc
import subprocess
import sys
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.core.cache import BESIDE, Place, RecordCache
from service.core.columns import Layout
from service.core.record import TTL_SLICE, encode, life_of
from service.core.roster import Roster
from service.core.session import ModelRef, Session, SessionKey
from service.core.slab import Slab
from service.core.spec import Axis, Feature, ModelSpec, Output, State
from tests.budget import examples
from tests.process import REPOSITORY

KEYS = [SessionKey("t", str(i)) for i in range(9)]
ROSTERS = [Roster(KEYS[:3]), Roster(KEYS[:2]), Roster([KEYS[4], KEYS[1]]), Roster(KEYS[2:4])]
MIB = 2**20


def layout(name: str, units: int) -> Layout:
    spec = ModelSpec(
        features=(Feature("x"),),
        outputs=(Output("y", "y", axes=(Axis("h", (1, 2)),)),),
        states=(State("h", "h", "next_h", (units,), 0),),
    )
    return Layout(ModelRef(name, "1", b"digest__"), spec)


SMALL, MIDDLE, LARGE = LAYOUTS = [layout("small", 3), layout("middle", 80), layout("large", 260)]
SIZE = 3 * (SMALL.size + BESIDE) + 2 * (LARGE.size + BESIDE)


def record(layout: Layout, step: int, value: float) -> bytes:
    """Return a record that has had `step` timesteps; before the first it has no outputs."""
    state = np.full(layout.spec.state_size, value, np.float32).tobytes()
    return encode(Session(layout.ref, 1, step, 2, 3, 60, state, bytes(8) if step else b""))


def rows(layout: Layout, values: list[float]) -> np.ndarray:
    return np.array([list(record(layout, 1, value)) for value in values], np.uint8)


class Cache(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.cache = RecordCache(SIZE)
        self.known: OrderedDict[SessionKey, tuple[bytes, Layout]] = OrderedDict()
        self.places: list[tuple[list[SessionKey], Place]] = []

    @rule(key=st.sampled_from(KEYS), layout=st.sampled_from(LAYOUTS), step=st.integers(0, 2), value=st.floats(0, 9))
    def put(self, key: SessionKey, layout: Layout, step: int, value: float) -> None:
        self.cache.put(key, record(layout, step, value), layout)
        self._keep([key], layout, [record(layout, step, value)])

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, unique=True), layout=st.sampled_from(LAYOUTS))
    def put_rows(self, keys: list[SessionKey], layout: Layout) -> None:
        records = [record(layout, 1 + i, i / 3) for i in range(len(keys))]
        self.cache.put_rows(keys, layout, np.array([list(each) for each in records], np.uint8))
        self._keep(keys, layout, records)

    @rule(key=st.sampled_from(KEYS))
    def get(self, key: SessionKey) -> None:
        assert self.cache.get(key) == self.known.get(key)
        if key in self.known:
            self.known.move_to_end(key)

    @rule(keys=st.one_of(st.lists(st.sampled_from(KEYS), unique=True), st.sampled_from(ROSTERS)))
    def find(self, keys: Sequence[SessionKey]) -> None:
        found, missing = self.cache.find(keys)
        assert [keys[i] for i in missing] == [key for key in keys if key not in self.known]
        assert sorted([*missing, *(i for each in found for i in each.at)]) == list(range(len(keys)))
        for at, place in found:
            for i, row in zip(at, place.slab.rows[place.rows], strict=True):
                held, layout = self.known[keys[i]]
                assert place.slab.layout is layout
                assert row.tobytes() == layout.filled(held)
            self.places.append(([keys[i] for i in at], place))
        for key in keys:
            if key in self.known:
                self.known.move_to_end(key)

    @precondition(lambda self: self.places)
    @rule(data=st.data())
    def put_where_they_were_found(self, data: st.DataObject) -> None:
        """However long ago that was."""
        keys, place = data.draw(st.sampled_from(self.places))
        layout = place.slab.layout
        some = sorted(data.draw(st.sets(st.sampled_from(range(len(keys))), min_size=1)))
        keys = [keys[i] for i in some]
        records = [record(layout, 1 + i, i / 7) for i in range(len(keys))]
        self.cache.put_rows(keys, layout, np.array([list(each) for each in records], np.uint8), place.pick(some))
        self._keep(keys, layout, records)

    @rule(key=st.sampled_from(KEYS))
    def drop(self, key: SessionKey) -> None:
        self.cache.drop(key)
        self.known.pop(key, None)

    @invariant()
    def it_holds_no_more_than_it_may(self) -> None:
        assert len(self.cache) == len(self.known)
        assert self.cache.used == self._bytes() <= SIZE

    def _keep(self, keys: list[SessionKey], layout: Layout, records: list[bytes]) -> None:
        touches = any(key not in self.known or self.known[key][1] is not layout for key in keys)
        unfit = max(len(keys) - SIZE // (layout.size + BESIDE), 0)
        for key in keys[:unfit]:
            self.known.pop(key, None)
        for key, each in list(zip(keys, records, strict=True))[unfit:]:
            self.known[key] = each, layout
            if touches:
                self.known.move_to_end(key)
        while self._bytes() > SIZE:
            self.known.popitem(last=False)

    def _bytes(self) -> int:
        return sum(layout.size + BESIDE for _, layout in self.known.values())


TestCache = Cache.TestCase
TestCache.settings = examples(200)


def test_what_one_model_leaves_another_may_have() -> None:
    cache = RecordCache(100 * (MIDDLE.size + BESIDE))
    for name, of in (("a", MIDDLE), ("b", SMALL), ("c", LARGE)):
        for number in range(300):
            cache.put(SessionKey(name, str(number)), record(of, 1, number), of)
        fits = 100 * (MIDDLE.size + BESIDE) // (of.size + BESIDE)
        assert len(cache) == fits
        assert cache.get(SessionKey(name, str(300 - fits))) == (record(of, 1, 300 - fits), of)


def test_a_record_larger_than_the_cache_is_not_kept() -> None:
    cache = RecordCache(SMALL.size + BESIDE)
    cache.put(KEYS[0], record(SMALL, 1, 1), SMALL)
    cache.put(KEYS[0], record(LARGE, 1, 1), LARGE)
    assert (cache.get(KEYS[0]), len(cache), cache.used) == (None, 0, 0)


def test_who_has_expired_makes_room_for_newcomers() -> None:
    cache = RecordCache(64 * MIB)

    def stepped(second: int) -> bytes:
        state = np.zeros(SMALL.spec.state_size, np.float32).tobytes()
        return encode(Session(SMALL.ref, 1, 1, 2, 1000 * second, 60, state, bytes(8)))

    for second in range(5000):
        cache.find([KEYS[0]])  # it comes again and again
        cache.put(KEYS[0], stepped(second), SMALL)
        for i in range(10):
            cache.put(SessionKey("t", f"{second}-{i}"), stepped(second), SMALL)
    alive, before_they_are_looked_at = 10 * 60 + 1, 1024
    assert alive <= len(cache) <= alive + before_they_are_looked_at + 1
    assert cache.get(KEYS[0]) is not None
    assert cache.get(SessionKey("t", "4945-0")) is not None
    assert cache.get(SessionKey("t", "4000-0")) is None


def test_newcomers_are_there_when_all_others_have_expired() -> None:
    cache = RecordCache(MIB)
    (born_ms, expires_ms), ends = life_of(record(SMALL, 1, 1)), Layout.rows(SMALL, [record(SMALL, 1, 1)])
    assert expires_ms > born_ms
    long_ago = [SessionKey("t", f"old-{i}") for i in range(900)]
    cache.put_rows(long_ago, SMALL, np.repeat(ends, 900, axis=0))
    later = encode(Session(SMALL.ref, 1, 1, 2, expires_ms + 1, 60, bytes(12), bytes(8)))
    newcomers = [SessionKey("t", f"new-{i}") for i in range(200)]
    cache.put_rows(newcomers, SMALL, np.repeat(SMALL.rows([later]), 200, axis=0))
    assert [cache.get(key) for key in newcomers] == [(later, SMALL)] * 200
    assert len(cache) == 200


def test_a_model_that_is_gone_leaves_no_memory_behind() -> None:
    cache, roster = RecordCache(MIB), Roster(KEYS[:3])
    cache.put_rows(roster, SMALL, rows(SMALL, [1, 2, 3]))
    found, _ = cache.find(roster)
    slab = weakref.ref(found[0].place.slab)
    del found
    for key in roster:
        cache.drop(key)
    assert slab() is None


def test_the_collector_has_nothing_to_follow() -> None:
    cache = RecordCache(64 * MIB)
    count = 5000
    gc.collect()
    before = len(gc.get_objects())
    for number in range(count):
        cache.put(SessionKey("t", str(number)), record(SMALL, 1, 1), SMALL)
    gc.collect()
    assert len(cache) == count
    assert len(gc.get_objects()) - before < count // 10


def block(layout: Layout, count: int, value: int) -> np.ndarray:
    """Return records of nothing but a value, which live for long."""
    made = np.full((count, layout.size), value, np.uint8)
    made[:, 28:36], made[:, TTL_SLICE] = 0, 255
    return made


def run(code: str, limit: str = "") -> str:
    """Run code that knows what this module does in a process of its own; `limit` is the shell's."""
    command = f"{limit} exec {sys.executable} -c 'from tests.core.test_cache import *\n{code}'"
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=REPOSITORY, check=True).stdout


RESIDENT = """
import psutil
def resident(): return psutil.Process().memory_info().rss
wide = layout("wide", 4096)
"""


def test_memory_is_taken_when_it_is_written_to_and_given_back_when_it_is_free() -> None:
    pytest.importorskip("psutil", reason="needs the bench extra")
    said = run(f"""{RESIDENT}
slab = Slab(wide, 1, 2**30 // wide.size)
start = resident()
numbers = range(64 * MIB // wide.size)
for number in numbers: slab.rows[slab.add(number)] = number % 256
full = resident()
for number in numbers[1:]: slab.remove(len(slab) - 1)
print(slab.capacity * wide.size, full - start, resident() - start, slab.rows[0].max())
""")
    reserved, full, empty, kept = map(int, said.split())
    assert reserved > 1000 * MIB
    assert 56 * MIB < full < 96 * MIB
    assert empty < 32 * MIB
    assert kept == 0


def test_where_address_space_is_short_fewer_are_remembered() -> None:
    said = run(
        f"""{RESIDENT}
cache = RecordCache(2**40)
count = 100_000
for first in range(0, count, 50):
    keys = [SessionKey("t", str(number)) for number in range(first, first + 50)]
    cache.put_rows(keys, wide, block(wide, 50, first // 50 % 251))
    assert not cache.find(keys)[1]
(found,), missing = cache.find([SessionKey("t", str(number)) for number in range(count)])
assert (found.place.slab.rows[found.place.rows][:, 9] == np.array(found.at) // 50 % 251).all()
print(found.place.slab.capacity, len(cache), min(found.at) == count - len(cache))
""",
        limit=f"ulimit -v {2**20};",
    )
    capacity, held, in_order = said.split()
    assert 100 < int(held) <= int(capacity) < 2**30 // wide_size()
    assert in_order == "True"


def wide_size() -> int:
    return layout("wide", 4096).size


def test_without_any_memory_to_reserve_nothing_is_remembered() -> None:
    none = Slab(cast("Layout", SimpleNamespace(size=2**60)), 1, 2**10)
    assert (none.capacity, len(none)) == (0, 0)
