"""Rosters: the same sessions are the same object, and so are their parts, as long as they are remembered."""

import gc
import weakref

import pytest

from service.core.roster import Roster, Rosters
from service.core.session import SessionKey

IDS = tuple(f"pump-{i}" for i in range(300))


def group(number: int, size: int = 10) -> tuple[str, ...]:
    return tuple(f"{number}-{i}" for i in range(size))


def test_the_same_sessions_are_the_same_roster_from_the_second_time_on() -> None:
    rosters = Rosters()
    first, second, third = (rosters.of("north", tuple(f"pump-{i}" for i in range(300))) for _ in range(3))
    assert first is not second
    assert second is third
    assert second is not None
    assert (first.comes_again, second.comes_again) == (False, True)
    assert rosters.of("south", IDS) is not rosters.of("south", IDS) is not third
    assert rosters.of("north", IDS[::-1]) is not third
    assert list(second) == [SessionKey("north", name) for name in IDS]
    assert all(type(key) is SessionKey for key in second)
    assert second.session_ids == IDS


def test_sessions_that_are_there_twice_are_no_roster() -> None:
    rosters = Rosters()
    assert [rosters.of("north", ("a", "b", "a")) for _ in range(3)] == [None] * 3


def test_those_that_came_last_are_remembered() -> None:
    rosters = Rosters(most=35)
    made = [[rosters.of("t", group(number)) for _ in range(2)][-1] for number in range(3)]
    assert rosters.of("t", group(0)) is made[0]
    fourth = [rosters.of("t", group(3)) for _ in range(2)][-1]
    assert rosters.of("t", group(3)) is fourth
    assert rosters.of("t", group(0)) is made[0]
    assert rosters.of("t", group(1)) is not made[1]


def test_what_comes_once_is_not_remembered_in_the_place_of_what_comes_again() -> None:
    rosters = Rosters(most=35)
    (_, known) = [rosters.of("t", group(0)) for _ in range(2)]
    for number in range(1, 1000):
        rosters.of("t", group(number))
    assert rosters.of("t", group(0)) is known


def test_one_that_is_in_use_is_not_forgotten() -> None:
    rosters = Rosters(most=35)
    (_, known) = [rosters.of("t", group(0)) for _ in range(2)]
    assert known is not None
    for number in range(1, 100):
        known.in_use = True
        for _ in range(2):
            rosters.of("t", group(number))
    assert rosters.of("t", group(0)) is known


def test_one_that_is_too_large_is_made_anew() -> None:
    rosters = Rosters(most=35)
    large = [rosters.of("t", group(0, 36)) for _ in range(3)]
    assert len(set(map(id, large))) == 3
    whole = [rosters.of("t", group(0, 35)) for _ in range(3)]
    assert whole[1] is whole[2]


@pytest.mark.parametrize("part", [slice(0, 128), slice(128, None), slice(-40, None), slice(260, 1000)])
def test_a_part_is_the_same_roster_each_time(part: slice) -> None:
    roster = Roster([SessionKey("t", name) for name in IDS])
    roster.comes_again = True
    assert not roster[part].comes_again
    assert roster[part] is roster[part]
    assert roster[part].comes_again
    assert list(roster[part]) == list(roster)[part]
    assert roster[part].session_ids == IDS[part]


def test_other_ways_to_take_of_it() -> None:
    keys = [SessionKey("t", name) for name in IDS]
    roster = Roster(keys)
    assert roster[:] is roster
    assert (roster[0], roster[-1], len(roster)) == (keys[0], keys[-1], len(keys))
    for part in (slice(7, 7), slice(5, 9), slice(None, None, -7)):
        assert list(roster[part]) == keys[part]
        assert roster[part].session_ids == IDS[part]


def test_neither_small_parts_nor_many_are_remembered() -> None:
    roster = Roster([SessionKey("t", name) for name in IDS])
    half = roster[:150]
    for start in range(100):
        assert list(roster[start : start + 9]) == list(roster)[start : start + 9]
    assert roster[:150] is half
    parts = weakref.WeakSet(roster[start : start + 90] for start in range(100))
    gc.collect()
    assert len(parts) < 10
    assert list(roster[5:95]) == list(roster)[5:95]
