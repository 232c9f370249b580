"""Moulds: what is read without being decoded is what the decoder reads, bit for bit, or is left to it."""

import gc
import random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.moulds import Mould, Moulds, Reader
from tests.api.gateway import Gateway, message, same
from tests.budget import examples

IDS = [f"pump-{i}" for i in range(12)]
ITEM = {"session_id": "a", "x": {"shape": [2], "data": bytes(8)}}


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


def numbers(seed: int, count: int = 12, width: int = 3) -> Any:
    return np.random.default_rng(seed).normal(size=(count, width)) * 100


def tensor(*values: float) -> dict[str, object]:
    return {"shape": [len(values)], "data": np.array(values, "<f4").tobytes()}


def item(name: str, x: object, **more: object) -> dict[str, object]:
    return {"session_id": name, "x": x, **more}


@pytest.mark.parametrize("tensors", [True, False], ids=["tensors", "numbers"])
@pytest.mark.parametrize("steps", [None, 5, 127, 128, 255, 300, 65_535, 70_000, 2**40])
def test_a_message_with_other_numbers_is_read(gateway: Gateway, tensors: bool, steps: int | None) -> None:
    content = message(IDS, numbers(0), None if steps is None else [steps] * 12, tensors=tensors)
    mould = gateway.mould_of(content)
    assert mould is not None
    for seed in (1, 2):
        content = message(IDS, numbers(seed), None if steps is None else [steps - seed % 2] * 12, tensors=tensors)
        right = gateway.decoded(content)
        assert right is not None
        # One that takes a byte less than those of the mould is left to the decoder.
        shorter = steps in (128, 256, 65_536) and seed == 1
        assert same(mould.read(content, right.roster), None if shorter else right)


def test_numbers_of_several_lengths_are_read(gateway: Gateway) -> None:
    steps = [1, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**53 - 1, 9, 10]
    others = [127, 1, 255, 128, 65_535, 256, 2**32 - 1, 65_536, 2**53 - 1, 2**32, 10, 11]
    mould = gateway.mould_of(message(IDS, numbers(1), steps))
    right = gateway.decoded(message(IDS, numbers(2), others))
    assert mould is not None
    assert right is not None
    assert right.numbers.tolist() == others
    assert same(mould.read(message(IDS, numbers(2), others), right.roster), right)


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
def test_another_message_is_left_to_the_decoder(gateway: Gateway, other: bytes) -> None:
    content = message(IDS, numbers(0))
    mould = gateway.mould_of(content)
    assert mould is not None
    assert mould.read(other, gateway.asked(content).roster) is None


@pytest.mark.parametrize(
    "items",
    [
        pytest.param([item(name, [1, 2]) for name in IDS], id="whole numbers"),
        pytest.param([item(name, [1.5, 2], step=3) for name in IDS], id="some whole numbers"),
        pytest.param([item(IDS[0], tensor(1, 2)), *(item(name, tensor(1, 2), step=3) for name in IDS[1:])], id="mixed"),
        # Its head has a zero, too: the numbers seem to begin there, and to write over it makes it no message.
        pytest.param([item(name, tensor(*[0] * 64)) for name in IDS], id="zeros behind a zero"),
    ],
)
def test_what_a_mould_does_not_know_has_none(gateway: Gateway, items: list[dict[str, object]]) -> None:
    assert gateway.mould_of(msgspec.msgpack.encode(items)) is None


def test_numbers_that_stand_in_a_sessions_name_are_not_taken_from_there(gateway: Gateway) -> None:
    data = b"pumppump"
    content = msgspec.msgpack.encode([item(f"pumppump{i}", {"shape": [2], "data": data}) for i in range(12)])
    assert gateway.mould_of(content) is None
    other = content.replace(b"\xa4data\xc4\x08" + data, b"\xa4data\xc4\x08" + b"12345678")
    mould = gateway.mould_of(other)
    assert mould is not None
    roster = gateway.asked(content).roster
    assert same(mould.read(content, roster), gateway.decoded(content)), "whatever the numbers are from then on"


def test_of_a_field_that_is_there_twice_the_one_that_counts_is_read_or_none(gateway: Gateway) -> None:
    def twice(first: tuple[float, float], second: tuple[float, float]) -> bytes:
        told = b"\x83\xaasession_id\xa1%c\xa1x" + msgspec.msgpack.encode(tensor(*first))
        told += b"\xa1x" + msgspec.msgpack.encode(tensor(*second))
        return b"\x9c" + b"".join(told.replace(b"%c", bytes([97 + i])) for i in range(12))

    assert gateway.mould_of(twice((1, 2), (1, 2))) is None, "the first is found, and the second counts"
    mould, other = gateway.mould_of(twice((1, 2), (3, 4))), twice((1, 2), (5, 6))
    assert mould is not None
    assert same(mould.read(other, gateway.asked(other).roster), gateway.decoded(other))


def test_a_steps_number_is_that_of_its_own_session(gateway: Gateway) -> None:
    def mixed(first: int, second: int) -> bytes:
        """The first one's number takes more bytes than it has to, and the second's no more."""
        told = [msgspec.msgpack.encode(item(name, tensor(1, 2), step=second)) for name in IDS]
        told[2] = told[2].replace(b"\xa4step" + bytes([second]), b"\xa4step\xcc" + bytes([first]))
        return b"\x9c" + b"".join(told)

    for _ in range(50):
        mould = gateway.mould_of(mixed(5, 5))
        assert mould is None or gateway.is_never_wrong(mould, mixed(5, 6), gateway.asked(mixed(5, 6)).roster)


def test_whole_numbers_beyond_those_of_steps_are_left_to_the_decoder(gateway: Gateway) -> None:
    content = message(IDS, numbers(0), [2**40] * 12)
    mould = gateway.mould_of(content)
    assert mould is not None
    for number in (0, 2**53, 2**64 - 1):
        wrong = content.replace((2**40).to_bytes(8, "big"), number.to_bytes(8, "big"))
        assert mould.read(wrong, gateway.asked(content).roster) is None
        assert gateway.decoded(wrong) is None


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
    gateway, draw = Gateway(), random.Random(seed)
    steps = [draw.choice([3, 100, 200, 40_000, 2**31, 2**50]) for _ in IDS] if numbered else None
    content = message(IDS, numbers(seed, width=width), steps, tensors=tensors)
    mould = gateway.mould_of(content)
    assert mould is not None
    changed = bytearray(content)
    for where, byte in cuts:
        changed[int(where * len(content))] = byte
    assert gateway.is_never_wrong(mould, bytes(changed), gateway.asked(content).roster)


class Socket:
    """One of a gateway's, and how often it had a message decoded to find out."""

    def __init__(self, gateway: Gateway, moulds: Moulds) -> None:
        self.tried = 0
        self._gateway = gateway
        self._reader = Reader(moulds, self._try)

    def _try(self, content: bytes) -> Any:
        self.tried += 1
        return self._gateway.decoded(content)

    def knows(self, content: bytes) -> bool:
        """Return whether a message is read without being decoded, as one that is; it learns from others."""
        right, found = self._gateway.decoded(content), self._reader.known(content)
        assert right is not None
        if found is None:
            self._reader.learn(content, right)
            return False
        assert same(found, right)
        return True


def test_a_socket_knows_what_has_come_before(gateway: Gateway) -> None:
    socket = Socket(gateway, Moulds())
    assert [socket.knows(message(IDS, numbers(seed))) for seed in range(9)] == [False] * 3 + [True] * 6


def test_a_socket_knows_two_groups_that_take_turns(gateway: Gateway) -> None:
    socket, groups = Socket(gateway, Moulds()), (IDS, [f"valve-{i}" for i in range(12)])
    known = [[socket.knows(message(group, numbers(seed))) for group in groups] for seed in range(9)]
    assert known[3:] == [[True, True]] * 6


def test_a_gateway_that_connects_again_is_known_sooner(gateway: Gateway) -> None:
    moulds = Moulds()
    for expected in (3, 1):
        socket = Socket(gateway, moulds)
        assert [socket.knows(message(IDS, numbers(seed))) for seed in range(6)].count(False) == expected


def test_hundreds_of_gateways_are_known(gateway: Gateway) -> None:
    moulds = Moulds()
    sockets = [(Socket(gateway, moulds), [f"{number}-{name}" for name in IDS]) for number in range(300)]
    for seed in range(5):
        known = [socket.knows(message(ids, numbers(seed))) for socket, ids in sockets]
    assert all(known)


def test_nothing_is_kept_of_sessions_that_are_not_remembered() -> None:
    moulds = Moulds()
    socket = Socket(Gateway(), moulds)
    assert [socket.knows(message(IDS, numbers(seed))) for seed in range(5)][-1]
    del socket
    gc.collect()
    assert not len(moulds._kept), "the gateway, with its rosters, is gone"


def test_what_is_of_no_use_is_tried_ever_more_rarely(gateway: Gateway) -> None:
    socket = Socket(gateway, Moulds())
    for width in range(1, 64):  # no two messages are alike
        assert not socket.knows(message(IDS, numbers(0, width=width)))
    assert 3 <= socket.tried <= 7
    known = [socket.knows(message(IDS, numbers(seed))) for seed in range(100)]
    assert known[-1], "and yet it is found out when they are"


def test_of_very_long_messages_none_is_made(gateway: Gateway) -> None:
    ids, socket = [f"{i:0100d}" for i in range(1024)], Socket(gateway, Moulds())
    assert len(message(ids, numbers(0, 1024, 8))) > 128 * 1024
    assert not any(socket.knows(message(ids, numbers(seed, 1024, 8))) for seed in range(5))
    assert not socket.tried


def test_the_numbers_of_a_message_are_not_kept(gateway: Gateway) -> None:
    mould = gateway.mould_of(message(IDS, [[123.456, -1, 2]] * 12, [77] * 12))
    assert mould is not None
    assert np.float32(123.456).tobytes() not in mould._content.tobytes()


def test_a_mould_is_of_the_message_it_was_made_of(gateway: Gateway) -> None:
    content = message(IDS, numbers(0))
    asked = gateway.asked(content)
    assert Mould.of(content, asked._replace(x=asked.x + 1), gateway.decoded) is None
