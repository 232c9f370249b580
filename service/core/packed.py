"""Records of any kinds, packed and unpacked: one after the other where they are few, else by kind, see `packing`."""

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import numpy as np

from service.core.columns import Rows
from service.core.packing import ALL, PACKED_FORM, Mask, packing_of, packing_of_one
from service.core.record import FORMAT_AT, HEADER, LENGTHS_SLICE

T = TypeVar("T")

_FEWEST = 6
"""Records from which on a matrix of them costs less than one after the other."""


def pack(records: Sequence[bytes]) -> list[bytes]:
    """Return plain records packed, each that fits and that takes less memory so; the others as they are."""
    return [_packed(record) for record in records] if len(records) < _FEWEST else _by_kind(records, pack_rows)


def unpack(values: Sequence[T]) -> list[T | bytes]:
    """Return packed records as they were before, and all else, be it damaged or no record, as it is."""
    found: list[T | bytes] = list(values)
    places = [
        i
        for i, value in enumerate(values)
        if isinstance(value, bytes) and value[FORMAT_AT : FORMAT_AT + 1] == PACKED_FORM
    ]
    if places:
        records = _by_kind([cast("bytes", values[i]) for i in places], unpack_rows)
        for i, record in zip(places, records, strict=True):
            found[i] = record
    return found


def pack_rows(rows: Rows) -> tuple[Rows, Mask] | None:
    """Pack plain records of one kind: names, states and outputs are as long in one as in all.

    Returns them packed and which of them fitted, or None where it gains nothing. The mask is as long as the records are
    many, or of one entry that holds for all.
    """
    packing = packing_of(rows)
    if packing is None:
        return None
    packed = np.empty((len(rows), packing.packed_size), np.uint8)
    return packed, packing.pack(rows, packed)


def unpack_rows(rows: Rows) -> tuple[Rows, Mask] | None:
    """Unpack records of one kind. Returns what `pack_rows` does, or None where they are not as long as packed ones."""
    packing = packing_of(rows, packed=True)
    return None if packing is None else (packing.unpack(rows), ALL)


def _packed(record: bytes) -> bytes:
    packing = packing_of_one(record)
    if packing is None:
        return record
    return packing.pack_one(record) or _changed([record], pack_rows)[0]


def _by_kind(records: Sequence[bytes], change: Callable[[Rows], tuple[Rows, Mask] | None]) -> list[bytes]:
    """Return records changed, where they can be."""
    if len(set(map(len, records))) <= 1 and len({record[LENGTHS_SLICE] for record in records}) <= 1:
        return _changed(records, change)  # nearly always
    kinds = [(len(record), record[LENGTHS_SLICE]) for record in records]
    found = list(records)
    for kind in set(kinds):
        same = [i for i, each in enumerate(kinds) if each == kind]
        for i, record in zip(same, _changed([records[i] for i in same], change), strict=True):
            found[i] = record
    return found


def _changed(records: Sequence[bytes], change: Callable[[Rows], tuple[Rows, Mask] | None]) -> list[bytes]:
    """Do for records of one kind what `_by_kind` does."""
    if not records or len(records[0]) < HEADER.size:
        return list(records)
    done = change(np.frombuffer(b"".join(records), np.uint8).reshape(len(records), -1))
    if done is None:
        return list(records)
    rows, fitted = done
    whole, size = rows.tobytes(), rows.shape[1]
    made = [whole[start : start + size] for start in range(0, len(whole), size)]
    if fitted.all():
        return made
    return [new if fits else record for new, record, fits in zip(made, records, fitted.tolist(), strict=True)]
