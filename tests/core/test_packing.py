"""Packed records: whatever stands in them comes back to the bit, and damaged ones harm no others."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.core import record
from service.core.errors import InvalidRecord
from service.core.packed import pack, pack_rows, unpack, unpack_rows
from service.core.session import ModelRef, Session
from tests.budget import examples

Bits = NDArray[np.uint32]
STATE, OUTPUTS = 256, 72
NUMBERS = STATE + OUTPUTS

u64 = st.integers(0, 2**64 - 1)
seeds = st.integers(0, 2**32 - 1)
words = st.integers(0, 2**32 - 1) | st.sampled_from(
    [
        0,
        1 << 31,
        1,
        0x007F_FFFF,
        0x0080_0000,
        0x7F7F_FFFF,
        0x7F80_0000,
        0xFF80_0000,
        0x7FC0_0001,
        0xFFFF_FFFF,
        0x3F80_0000,
    ]
)
"""Bits of a float32: any, and at every border: zeros, subnormal and largest numbers, infinities, not-a-numbers."""


def made_of(bits: Bits, *, name: str = "hotspot", state_n: int = STATE, version: str = "1") -> bytes:
    """Return the record whose numbers have these bits, the first `state_n` of them the state's."""
    state, outputs = bits[:state_n].tobytes(), bits[state_n:].tobytes()
    session = Session(ModelRef(name, version, b"12345678"), 2**63, 7, 9, 1_700_000_000_000, 3600, state, outputs)
    return record.encode(session)


def usual(seed: int, scale: float = 80.0) -> Bits:
    """Return what a model may have left: a state around zero, outputs around `scale`."""
    draw = np.random.default_rng(seed)
    state, outputs = draw.uniform(-1, 1, STATE), draw.normal(scale, scale / 100, OUTPUTS)
    return np.concatenate([state, outputs]).astype(np.float32).view(np.uint32)


def is_packed(value: bytes) -> bool:
    return value[record.FORMAT_AT] == record.PACKED


def rows_of(values: list[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(values), np.uint8).reshape(len(values), -1)


def test_what_a_model_leaves_is_packed() -> None:
    records = [made_of(usual(seed)) for seed in range(64)]
    values = pack(records)
    assert all(map(is_packed, values))
    assert {len(value) for value in values} == {1264}, "plain: 1,378"
    assert unpack(values) == records


@given(st.lists(st.tuples(seeds, st.dictionaries(st.integers(0, NUMBERS - 1), words, max_size=4)), max_size=5))
def test_every_number_comes_back_to_the_bit(drawn: list[tuple[int, dict[int, int]]]) -> None:
    """Some numbers of usual records are replaced by any: those that fit, and those that keep their record plain."""
    records = []
    for seed, replaced in drawn:
        bits = usual(seed)
        bits[list(replaced)] = list(replaced.values())
        records.append(made_of(bits))
    assert unpack(pack(records)) == records


@given(st.integers(0, 2**28 - 1), st.sampled_from([0, 15, 16, 112, 127]), st.booleans(), seeds)
def test_numbers_at_the_edges_of_what_has_room_come_back(distance: int, top: int, negative: bool, seed: int) -> None:
    """Beside a number with a certain top: one that far below the end of it, and a zero of either sign."""
    bits = usual(seed)
    largest = (top << 24) + 0xFF_FFFF
    bits[:STATE] = largest - np.random.default_rng(seed).integers(0, min(largest, 2**28 - 1), STATE)
    bits[0], bits[1], bits[2] = largest, max(largest - distance, 0), int(negative) << 31
    records = [made_of(bits), made_of(usual(seed))]
    assert unpack(pack(records)) == records


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("nothing but zeros", lambda bits: bits.fill(0)),
        ("nothing but negative zeros", lambda bits: bits.fill(1 << 31)),
        ("every second number zero", lambda bits: bits[::2].fill(0)),
        ("zeros of both signs", lambda bits: bits[:2].__setitem__(slice(None), [0, 1 << 31])),
        ("infinities alone", lambda bits: bits.fill(0xFF80_0000)),
        ("not-a-numbers with something to say", lambda bits: bits.__setitem__(slice(None), 0x7FC0_1234)),
        ("subnormal numbers alone", lambda bits: bits.__setitem__(slice(None), np.arange(1, NUMBERS + 1))),
        ("other signs", lambda bits: bits.__ixor__(np.uint32(1 << 31))),
        ("outputs in Pa", lambda bits: bits[STATE:].__setitem__(slice(None), usual(9, 101_325.0)[STATE:])),
    ],
)
def test_what_fits_is_packed(what: str, change: Callable[[Bits], object]) -> None:
    bits = usual(1)
    change(bits)
    for company in ([], [made_of(usual(2))]):  # alone, and where another sets the expectations
        records = [*company, made_of(bits)]
        values = pack(records)
        assert all(map(is_packed, values)), what
        assert unpack(values) == records


def test_what_does_not_fit_stays_plain_beside_what_does() -> None:
    bits = usual(1)
    bits[5] = 1
    odd, fine = made_of(bits), made_of(usual(2))
    values = pack([fine, odd, fine])
    assert list(map(is_packed, values)) == [True, False, True]
    assert values[1] == odd
    assert unpack(values) == [fine, odd, fine]


def test_what_would_be_the_least_magnitude_is_no_zero() -> None:
    """The number of which nothing is left when its base is taken away, beside a zero."""
    for beside in (0, int(usual(1)[1])):
        bits = usual(1)
        top = int((bits[:STATE] & 0x7FFF_FFFF).max()) >> 24
        bits[0], bits[1] = (top - 15) << 24, beside
        records = [made_of(bits)] * 2
        assert unpack(pack(records)) == records


@examples(50)
@given(
    st.lists(
        st.tuples(
            st.text(max_size=9), st.text(max_size=3), st.integers(0, 400), st.integers(0, 400), seeds, st.booleans()
        ),
        max_size=6,
    )
)
def test_records_of_all_kinds_go_together(drawn: list[tuple[str, str, int, int, int, bool]]) -> None:
    """Of any lengths, in any order; every size that is packed takes less memory, by the classes of the allocator."""
    records = []
    for name, version, states, outputs, seed, wild in drawn:
        draw = np.random.default_rng(seed)
        bits = draw.integers(0, 2**32, states + outputs, dtype=np.uint32)
        if not wild:
            bits = draw.uniform(-1, 1, states + outputs).astype(np.float32).view(np.uint32)
        records.append(made_of(bits, name=name, version=version, state_n=states))
    values = pack(records)
    assert unpack(values) == records
    assert all(len(value) < len(whole) for value, whole in zip(values, records, strict=True) if is_packed(value))


@pytest.mark.parametrize(
    ("numbers", "packed"),
    [
        (0, False),
        (10, False),
        (41, False),
        (300, False),
        (310, True),
        (328, True),
        (340, False),
        (380, True),
        (1024, True),
    ],
)
def test_only_what_then_takes_less_memory_is_packed(numbers: int, packed: bool) -> None:
    """By jemalloc's classes: 1,280 bytes, 1,536, 1,792; packing 340 numbers would end in the class where they begin."""
    bits = np.resize(usual(3)[:STATE], numbers).astype(np.uint32)
    (value,) = pack([made_of(bits, state_n=numbers)])
    assert is_packed(value) == packed


@given(st.data())
def test_a_damaged_one_is_refused_alone(data: st.DataObject) -> None:
    """Cut, grown, or with other lengths in its header: it comes back as it is, and nobody takes it for a record."""
    fine = [made_of(usual(seed)) for seed in range(3)]
    values = pack(fine)
    cut = values[1][: data.draw(st.integers(4, len(values[1]) - 1))]
    lengths = bytearray(values[1])
    lengths[data.draw(st.integers(48, 57))] ^= data.draw(st.integers(1, 255))
    for damaged in (cut, values[1] + b"\0", bytes(lengths)):
        assert unpack([values[0], damaged, values[2]]) == [fine[0], damaged, fine[2]]
        with pytest.raises(InvalidRecord, match="format is 2, which only the store sees"):
            record.decode(damaged.ljust(record.HEADER.size, b"\0"))


@given(st.lists(st.binary(max_size=100) | st.none() | st.integers(), max_size=4), st.integers(0, 90))
def test_what_is_no_packed_record_is_left_alone(values: list[bytes | int | None], size: int) -> None:
    values.append(b"CVY\2" + bytes(size))
    assert unpack(values) == values


@given(st.binary(min_size=1206, max_size=1206), st.integers(0, 2**16 - 1))
def test_any_bytes_of_the_right_length_unpack_to_something(tail: bytes, tops: int) -> None:
    """As with plain records, other bits are other numbers."""
    (value,) = pack([made_of(usual(1))])
    spoiled = value[: 1264 - 1198] + tops.to_bytes(2, "little") + tail[:1196]
    (found,) = unpack([spoiled])
    assert len(found) == 1378
    assert found[: 1264 - 1198] == made_of(usual(1))[: 1264 - 1198]


def test_matrices_are_packed_as_records_are() -> None:
    records = [made_of(usual(seed)) for seed in range(5)]
    packed = pack_rows(rows_of(records))
    assert packed is not None
    assert packed[1].all()
    assert packed[0].tobytes() == b"".join(pack(records))
    unpacked = unpack_rows(packed[0])
    assert unpacked is not None
    assert unpacked[0].tobytes() == b"".join(records)


def test_the_header_is_the_same_in_both_formats() -> None:
    whole = made_of(usual(1))
    (value,) = pack([whole])
    assert value[: record.FORMAT_AT] == whole[: record.FORMAT_AT]
    assert value[record.FORMAT_AT + 1 : 66] == whole[record.FORMAT_AT + 1 : 66]
    assert record.step_of(value) == record.step_of(whole)
    assert record.ttl_s_of(value) == record.ttl_s_of(whole)


@pytest.mark.parametrize("numbers", [1, 5, 10])
def test_a_packed_record_of_so_few_numbers_that_none_is_harms_no_others(numbers: int) -> None:
    plain = made_of(usual(1)[:numbers], state_n=numbers)
    forged = plain[:3] + bytes([record.PACKED]) + plain[4:66] + bytes(1) + plain[66:]
    fine = made_of(usual(2))
    assert unpack([forged, *pack([fine])]) == [forged, fine]
