"""Moulds: what is read without being decoded is what the decoder reads, bit for bit, or is left to it."""

import random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.moulds import Mould, Moulds, Timesteps
from tests.api.gateway import decoded, message, same
from tests.budget import examples

IDS = [f"pump-{i}" for i in range(12)]


def numbers(seed: int, count: int = 12, width: int = 3) -> Any:
    return np.random.default_rng(seed).normal(size=(count, width)) * 100


def learnt(moulds: Moulds, content: bytes) -> None:
    asked = decoded(content)
    assert asked is not None
    moulds.learn(content, asked, decoded)


def mould_of(content: bytes) -> Mould | None:
    asked = decoded(content)
    assert asked is not None
    return Mould.of(content, asked, decoded)


def is_never_wrong(mould: Mould | None, content: bytes) -> bool:
    found = None if mould is None else mould.read(content)
    return found is None or same(found, decoded(content))


@pytest.mark.parametrize("tensors", [True, False], ids=["tensors", "numbers"])
@pytest.mark.parametrize("steps", [None, 5, 127, 128, 255, 300, 65_535, 70_000, 2**40])
def test_a_message_with_other_numbers_is_read(tensors: bool, steps: int | None) -> None:
    mould = mould_of(message(IDS, numbers(0), None if steps is None else [steps] * 12, tensors=tensors))
    assert mould is not None
    for seed in (1, 2):
        content = message(IDS, numbers(seed), None if steps is None else [steps - seed % 2] * 12, tensors=tensors)
        found = mould.read(content)
        # One that takes a byte less than those of the mould is left to the decoder.
        assert same(found, decoded(content)) or (found is None and steps in (128, 256, 65_536) and seed == 1)


def test_numbers_of_several_lengths_are_read() -> None:
    steps = [1, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**53 - 1, 9, 10]
    others = [127, 1, 255, 128, 65_535, 256, 2**32 - 1, 65_536, 2**53 - 1, 2**32, 10, 11]
    mould = mould_of(message(IDS, numbers(1), steps))
    assert mould is not None
    found = mould.read(message(IDS, numbers(2), others))
    assert found is not None
    assert found.numbers.tolist() == others
    assert same(found, decoded(message(IDS, numbers(2), others)))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(message(IDS[::-1], numbers(1)), id="another order"),
        pytest.param(message([*IDS[:-1], "pump-xy"], numbers(1)), id="another session"),
        pytest.param(message(IDS[:-1], numbers(1, 11)), id="one less"),
        pytest.param(message(IDS, numbers(1), [1] * 12), id="numbered"),
        pytest.param(message(IDS, numbers(1, width=4)), id="wider"),
        pytest.param(message(IDS, numbers(1), tensors=False), id="no tensors"),
    ],
)
def test_another_message_is_left_to_the_decoder(other: bytes) -> None:
    mould = mould_of(message(IDS, numbers(0)))
    assert mould is not None
    assert mould.read(other) is None


def item(name: str, x: object, **more: object) -> dict[str, object]:
    return {"session_id": name, "x": x, **more}


def tensor(*values: float) -> dict[str, object]:
    return {"shape": [len(values)], "data": np.array(values, "<f4").tobytes()}


@pytest.mark.parametrize(
    "items",
    [
        pytest.param([item(name, [1, 2]) for name in IDS], id="whole numbers"),
        pytest.param([item(name, [1.5, 2], step=3) for name in IDS], id="some whole numbers"),
        pytest.param(
            [item(name, tensor(1, 2), **({"step": 3} if i else {})) for i, name in enumerate(IDS)], id="mixed"
        ),
    ],
)
def test_what_a_mould_does_not_know_has_none(items: list[dict[str, object]]) -> None:
    assert mould_of(msgspec.msgpack.encode(items)) is None


def test_numbers_that_stand_elsewhere_too_are_found_in_their_place_or_not_at_all() -> None:
    data = b"pumppump"  # what a session is called, too
    for name in ("pumppump", "xpumppumpx"):
        items = [item(f"{name}{i}", {"shape": [2], "data": data}) for i in range(12)]
        content = msgspec.msgpack.encode(items)
        mould = mould_of(content)
        other = content.replace(b"\xa4data\xc4\x08" + data, b"\xa4data\xc4\x08" + b"12345678")
        assert other != content
        assert is_never_wrong(mould, other)


def test_a_field_that_is_there_twice_is_left_to_the_decoder() -> None:
    twice = b"\x83" + b"\xaasession_id\xa1%c" + b"\xa1x" + msgspec.msgpack.encode(tensor(1, 2))
    twice += b"\xa1x" + msgspec.msgpack.encode(tensor(3, 4))
    content = b"\x9c" + b"".join(twice % (97 + i) for i in range(12))
    mould = mould_of(content)
    other = content.replace(np.array([1, 2], "<f4").tobytes(), np.array([5, 6], "<f4").tobytes())
    assert other != content
    assert is_never_wrong(mould, other)


def test_whole_numbers_beyond_those_of_steps_are_left_to_the_decoder() -> None:
    mould = mould_of(message(IDS, numbers(0), [2**40] * 12))
    assert mould is not None
    for number in (0, 2**53, 2**64 - 1):
        content = message(IDS, numbers(1), [2**40] * 12)
        content = content.replace((2**40).to_bytes(8, "big"), number.to_bytes(8, "big"))
        assert mould.read(content) is None
        assert decoded(content) is None


@given(
    tensors=st.booleans(),
    numbered=st.booleans(),
    width=st.integers(1, 4),
    cuts=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
    seed=st.integers(0, 999),
)
@examples(400)
def test_whatever_is_changed_in_a_message_it_is_read_as_the_decoder_reads_it(
    tensors: bool, numbered: bool, width: int, cuts: list[tuple[float, int]], seed: int
) -> None:
    draw = random.Random(seed)
    steps = [draw.choice([3, 100, 200, 40_000, 2**31, 2**50]) for _ in IDS] if numbered else None
    content = message(IDS, numbers(seed, width=width), steps, tensors=tensors)
    mould = mould_of(content)
    assert mould is not None
    changed = bytearray(content)
    for where, byte in cuts:
        changed[int(where * len(content))] = byte
    assert is_never_wrong(mould, bytes(changed))


def test_a_socket_makes_one_of_what_comes_for_the_second_time() -> None:
    moulds = Moulds()
    for seed in range(2):
        assert moulds.read(message(IDS, numbers(seed))) is None
        learnt(moulds, message(IDS, numbers(seed)))
    assert same(moulds.read(message(IDS, numbers(2))), decoded(message(IDS, numbers(2))))
    assert moulds.read(message(IDS, numbers(2)).decode("latin-1")) is None, "text is read as ever"


def test_a_socket_has_one_for_each_of_two_groups_that_take_turns() -> None:
    moulds = Moulds()
    groups = IDS, [f"valve-{i}" for i in range(12)]
    for seed in range(2):
        for group in groups:
            learnt(moulds, message(group, numbers(seed)))
    for group in groups:
        assert same(moulds.read(message(group, numbers(9))), decoded(message(group, numbers(9))))


def test_where_they_are_of_no_use_no_more_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    of = Mould.of

    def counted(content: bytes, asked: Timesteps, decode: Any) -> Mould | None:
        made.append(content)
        return of(content, asked, decode)

    monkeypatch.setattr(Mould, "of", counted)
    moulds = Moulds()
    for width in range(1, 50):  # no two messages are alike
        content = message(IDS, numbers(0, width=width))
        assert moulds.read(content) is None
        learnt(moulds, content)
    assert 3 <= len(made) <= 6


def test_of_very_long_messages_none_is_made() -> None:
    ids = [f"{i:0100d}" for i in range(1024)]
    moulds = Moulds()
    for seed in range(3):
        content = message(ids, numbers(seed, 1024, 8))
        assert len(content) > 128 * 1024
        assert moulds.read(content) is None
        learnt(moulds, content)
