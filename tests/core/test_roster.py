"""Rosters: the same sessions are the same object, and so are their parts."""

import gc
import weakref

import pytest

from service.core.roster import Roster, roster_of
from service.core.session import SessionKey

IDS = tuple(f"pump-{i}" for i in range(300))


def test_the_same_sessions_are_the_same_roster() -> None:
    roster = roster_of("north", IDS)
    assert roster is not None
    assert roster is roster_of("north", tuple(f"pump-{i}" for i in range(300)))
    assert roster is not roster_of("south", IDS)
    assert roster is not roster_of("north", IDS[::-1])
    assert list(roster) == [SessionKey("north", name) for name in IDS]
    assert all(type(key) is SessionKey for key in roster)
    assert roster.session_ids == IDS


def test_sessions_that_are_there_twice_are_no_roster() -> None:
    assert roster_of("north", ("a", "b", "a")) is None


@pytest.mark.parametrize("part", [slice(0, 128), slice(128, None), slice(-3, None), slice(7, 7), slice(280, 1000)])
def test_a_part_is_the_same_roster_each_time(part: slice) -> None:
    roster = Roster([SessionKey("t", name) for name in IDS])
    assert roster[part] is roster[part]
    assert list(roster[part]) == list(roster)[part]
    assert roster[part].session_ids == IDS[part]


def test_other_ways_to_take_of_it() -> None:
    keys = [SessionKey("t", name) for name in IDS]
    roster = Roster(keys)
    assert roster[:] is roster
    assert (roster[0], roster[-1], len(roster)) == (keys[0], keys[-1], len(keys))
    assert list(roster[::-7]) == keys[::-7]
    assert roster.session_ids[::-7] == roster[::-7].session_ids


def test_parts_are_forgotten_where_there_are_ever_new_ones() -> None:
    roster = Roster([SessionKey("t", name) for name in IDS])
    parts = weakref.WeakSet(roster[start : start + 9] for start in range(100))
    gc.collect()
    assert len(parts) < 10
    assert list(roster[5:14]) == list(roster)[5:14]
