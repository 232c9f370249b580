"""The records of many sessions as columns: a batch reads and writes them side by side, and takes none of them apart.

What `service.core.record` says of one record is said here of a matrix of bytes that has one in each row. The records of
turns, of which there are few, are taken apart one by one: see `Layout.states` and `Layout.advance`.
"""

import struct
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from service.core.errors import InvalidRecord
from service.core.record import (
    CHANGED,
    CHANGED_AT,
    CHANGED_SLICE,
    FLOAT_BYTES,
    HEADER,
    LENGTHS,
    LENGTHS_SLICE,
    VERSION_SLICE,
    step_of,
)
from service.core.session import ModelRef, Session
from service.core.spec import ModelSpec

Floats = NDArray[np.float32]
Rows = NDArray[np.uint8]
"""Records of one layout, (batch, `Layout.size`)."""


class Layout:
    """Where things stand in the records of one model's sessions, once these have outputs.

    `pack` turns the numbers of a timestep, `spec.width` of them, into the bytes of as many float32. It raises
    `struct.error` for other counts and for what is no number, and `OverflowError` for more than a float32 holds.
    """

    def __init__(self, ref: ModelRef, spec: ModelSpec) -> None:
        self.ref = ref
        self.spec = spec
        self.pack = struct.Struct(f"{spec.width}f").pack
        state_at = HEADER.size + len(ref.name.encode()) + len(ref.version.encode())
        outputs_at = state_at + FLOAT_BYTES * spec.state_size
        self._numbers_at, self._size_before = state_at, outputs_at
        self._lengths, self._lengths_before = (
            LENGTHS.pack(len(ref.name.encode()), len(ref.version.encode()), FLOAT_BYTES * spec.state_size, outputs_n)
            for outputs_n in (FLOAT_BYTES * spec.output_size, 0)
        )
        self.size = outputs_at + FLOAT_BYTES * spec.output_size
        self.fields = np.dtype(
            {
                "names": [*CHANGED_AT, "state", "outputs"],
                "formats": [
                    "<u8",
                    "<u8",
                    "<u8",
                    "<u4",
                    (np.uint8, outputs_at - state_at),
                    (np.uint8, self.size - outputs_at),
                ],
                "offsets": [*CHANGED_AT.values(), state_at, outputs_at],
                "itemsize": self.size,
            }
        )

    def fits(self, record: bytes) -> bool:
        """Return whether a record has the lengths that it has to have: without outputs before the first timestep."""
        if step_of(record):
            return len(record) == self.size and record[LENGTHS_SLICE] == self._lengths
        return len(record) == self._size_before and record[LENGTHS_SLICE] == self._lengths_before

    def states(self, records: Sequence[bytes]) -> Floats:
        """Return the states of records that fit as (batch, `spec.state_size`)."""
        held = b"".join([record[self._numbers_at : self._size_before] for record in records])
        return np.frombuffer(held, "<f4").astype(np.float32, copy=False).reshape(len(records), -1)

    def advance(
        self, records: Sequence[bytes], timesteps: int, state: Floats, outputs: Floats, *, nonce: int, now_ms: int
    ) -> list[bytes]:
        """Return the records that those which fit become. For a few of them, this costs less than `Columns.advance`."""
        at = self._numbers_at
        return [
            b"".join(
                (
                    record[: CHANGED_SLICE.start],
                    CHANGED.pack(step_of(record) + timesteps, nonce, now_ms),
                    record[CHANGED_SLICE.stop : LENGTHS_SLICE.start],
                    self._lengths,
                    record[LENGTHS_SLICE.stop : at],
                    _bytes(state[i]).data,
                    _bytes(outputs[i]).data,
                )
            )
            for i, record in enumerate(records)
        ]

    def filled(self, record: bytes) -> bytes:
        """Return a record with room for outputs where it has none yet."""
        return record.ljust(self.size, b"\0")

    def trimmed(self, record: bytes) -> bytes:
        """Undo `filled`."""
        return record if step_of(record) else record[: self._size_before]

    def rows(self, records: Sequence[bytes]) -> Rows:
        """Return records that fit as rows, which may be changed; one without outputs has zeros there."""
        whole = bytearray().join([self.filled(record) for record in records])
        return np.frombuffer(whole, np.uint8).reshape(len(records), self.size)

    def are_sound(self, rows: Rows) -> bool:
        """Return whether records of this size, with outputs, have the right lengths and nothing but finite numbers."""
        right = np.frombuffer(self._lengths, np.uint8)
        return bool((rows[:, LENGTHS_SLICE] == right).all()) and bool(
            np.isfinite(np.ascontiguousarray(rows[:, self._numbers_at :]).view("<f4")).all()
        )

    def require(self, session: Session) -> None:
        """Raise `InvalidRecord` unless the session has the lengths that its model asks for."""
        outputs = self.spec.output_size if session.step else 0
        for part, held, size in (
            ("state", session.state, self.spec.state_size),
            ("outputs", session.outputs, outputs),
        ):
            if len(held) != FLOAT_BYTES * size:
                raise InvalidRecord(f"the record's {part} has {len(held)} bytes; the model's has {FLOAT_BYTES * size}")


class Columns:
    """The records of a batch of sessions of one layout, before their first timestep or after it.

    `version`, (batch, 24) bytes, and `step`, uint64, are what they are at first, and so is `state`,
    (batch, `spec.state_size`), float32 and C-contiguous. Made by `of`.
    """

    def __init__(self, layout: Layout, rows: Rows, version: Rows, step: NDArray[np.uint64], state: Floats) -> None:
        self.layout = layout
        self._rows = rows
        self.version, self.step, self.state = version, step, state

    @classmethod
    def of(cls, layout: Layout, rows: Rows) -> Self:
        """Return the records in some rows, which are theirs from now on, as columns."""
        fields = rows.view(layout.fields)[:, 0]
        state = np.ascontiguousarray(fields["state"]).view("<f4").astype(np.float32, copy=False)
        return cls(layout, rows, rows[:, VERSION_SLICE].copy(), fields["step"].astype(np.uint64), state)

    def part(self, rows: slice) -> "Columns":
        """Return some of these columns. They are the same memory."""
        return Columns(self.layout, self._rows[rows], self.version[rows], self.step[rows], self.state[rows])

    def pick(self, rows: Sequence[int]) -> "Columns":
        """Return the columns of some of these records, as they are now."""
        return Columns.of(self.layout, self._rows[rows])

    def advance(self, timesteps: int, state: Floats, outputs: Floats, *, nonce: int, now_ms: int) -> Rows:
        """Turn the records into those of the sessions `timesteps` later, and return them.

        `state` is (batch, `spec.state_size`) and `outputs`, those of the last timestep, (batch, `spec.output_size`).
        """
        fields = self._rows.view(self.layout.fields)[:, 0]  # what is none of these stays as it is
        fields["step"] += np.uint64(timesteps)
        fields["nonce"] = nonce
        fields["updated_at_ms"] = now_ms
        fields["outputs_n"] = FLOAT_BYTES * outputs.shape[1]
        fields["state"] = _bytes(state)
        fields["outputs"] = _bytes(outputs)
        return self._rows


def _bytes(floats: Floats) -> NDArray[np.uint8]:
    return np.ascontiguousarray(floats, "<f4").view(np.uint8)
