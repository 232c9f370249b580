"""Casts: answers with other numbers put into them are what the encoder makes, byte for byte."""

import random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api import encodings
from service.api.casts import Cast, Casts
from service.api.messages import rest_answers
from service.core.roster import Roster, Rosters
from service.core.session import SessionKey
from service.frame import Answers
from tests.budget import examples

ROSTER = Roster([SessionKey("t", f"pump-{i}") for i in range(9)])
SHAPES: dict[str, tuple[int, ...]] = {"load": (4, 3), "level": ()}


def encode(roster: Roster, answers: Answers) -> bytes:
    """As ever: each of them as a message, one behind the other."""
    told = rest_answers(roster.session_ids, answers, encodings._tensors)
    return b"".join(map(encodings.MSGPACK.encode, told))


def answers(seed: int, steps: list[int], *names: str) -> Answers:
    draw = np.random.default_rng(seed)
    outputs: dict[str, Any] = {
        name: draw.normal(size=(len(steps), *SHAPES[name])).astype(np.float32) for name in names or ("load",)
    }
    return Answers(0, steps, outputs)


@pytest.mark.parametrize("names", [("load",), ("level",), ("load", "level"), ("level", "load")])
def test_other_numbers_are_put_in(names: tuple[str, ...]) -> None:
    cast = Cast.of(ROSTER, answers(0, list(range(200, 209)), *names), encode)
    assert cast is not None
    later = answers(1, list(range(230, 239)), *names)
    assert cast.made(later) == encode(ROSTER, later)


@given(
    st.lists(st.sampled_from([1, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**53]), min_size=9, max_size=9)
)
@examples(200)
def test_steps_of_every_length(steps: list[int]) -> None:
    cast = Cast.of(ROSTER, answers(0, [5, 100, 200, 250, 300, 60_000, 70_000, 2**31, 2**40]), encode)
    assert cast is not None
    made = cast.made(answers(1, steps))
    assert made is None or made == encode(ROSTER, answers(1, steps))
    lengths = [len(msgspec.msgpack.encode(step)) for step in steps]
    assert (made is not None) == (lengths == [1, 1, 2, 2, 3, 3, 5, 5, 9])


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(answers(1, [200] * 9, "load", "level"), id="one more"),
        pytest.param(answers(1, [200] * 9, "level"), id="another"),
        pytest.param(Answers(0, [200] * 9, {"load": np.ones((9, 3, 4), np.float32)}), id="another shape"),
        pytest.param(answers(1, [300] * 9), id="a longer step"),
    ],
)
def test_what_takes_more_than_numbers_is_left_to_the_encoder(other: Answers) -> None:
    cast = Cast.of(ROSTER, answers(0, [200] * 9), encode)
    assert cast is not None
    assert cast.made(other) is None


def test_numbers_that_stand_twice_in_the_answers_are_put_in_twice() -> None:
    same = np.ones((9, 4, 3), np.float32)
    cast = Cast.of(ROSTER, Answers(0, [200] * 9, {"a": same, "b": same}), encode)
    later = Answers(0, [201] * 9, {"a": same * 2, "b": same * 3})
    assert cast is not None
    assert cast.made(later) == encode(ROSTER, later)


def coming_again() -> Roster:
    rosters = Rosters()
    (*_, roster) = [rosters.of("t", ROSTER.session_ids) for _ in range(3)]
    assert roster is not None
    return roster


def encoded_by(casts_of: Roster, told: list[Answers]) -> int:
    """Have all of these encoded; return how often the encoder was asked."""
    asked = []

    def counted(roster: Roster, answers: Answers) -> bytes:
        asked.append(answers)
        return encode(roster, answers)

    casts = Casts(counted)
    for each in told:
        assert casts.answers(casts_of, each) == encode(casts_of, each)
    return len(asked)


def test_one_is_made_of_what_comes_again() -> None:
    told = [answers(i, list(range(200 + i, 209 + i))) for i in range(10)]
    assert encoded_by(coming_again(), told) == 1 + 2, "the first, and twice for the cast"
    assert encoded_by(Roster(list(ROSTER)), told) == 10


def test_answers_go_on_when_steps_get_longer() -> None:
    told = [answers(step, list(range(step, step + 9))) for step in range(100, 300)]
    assert encoded_by(coming_again(), told) < 60


def test_sessions_that_did_not_begin_together_are_known_when_they_are_as_long() -> None:
    told = [answers(i, [1 + i + 31 * session for session in range(9)]) for i in range(2000)]
    assert encoded_by(coming_again(), told) < 1000


def test_what_is_of_no_use_is_tried_ever_more_rarely() -> None:
    draw = random.Random(1)
    told = [answers(i, [draw.choice([1, 200, 300, 70_000, 2**40]) for _ in ROSTER]) for i in range(200)]
    assert 200 < encoded_by(coming_again(), told) <= 200 + 2 * 8


def test_the_outputs_are_not_kept() -> None:
    told = answers(0, [200] * 9)
    cast = Cast.of(ROSTER, told, encode)
    assert cast is not None
    assert told.outputs["load"][0].tobytes() not in cast._content.tobytes()
