"""The records of many sessions as columns: a batch reads and writes them side by side, and takes none of them apart.

What `service.core.record` says of one record is said here of a matrix of bytes that has one in each row.
"""

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.core.errors import InvalidRecord
from service.core.record import CHANGED_AT, FLOAT_BYTES, HEADER, step_of
from service.core.session import ModelRef, Session
from service.core.spec import ModelSpec

Floats = NDArray[np.float32]


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
        self._size_before = outputs_at
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
        """Return whether a record is as long as it has to be: without outputs before the first timestep."""
        return len(record) == (self.size if step_of(record) else self._size_before)

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

    `step` are their counts, uint64; `state` is (batch, `spec.state_size`), float32 and C-contiguous.
    """

    def __init__(self, layout: Layout, records: Sequence[bytes]) -> None:
        size = layout.size
        # Before the first timestep a record has no outputs, and is shorter by that.
        whole = b"".join([record if len(record) == size else record.ljust(size, b"\0") for record in records])
        self._layout = layout
        self._whole = np.frombuffer(whole, np.uint8)
        rows = self._whole.view(layout.fields)
        self.step: NDArray[np.uint64] = rows["step"].astype(np.uint64)
        self.state: Floats = np.ascontiguousarray(rows["state"]).view("<f4").astype(np.float32, copy=False)

    def advance(self, timesteps: int, state: Floats, outputs: Floats, *, nonce: int, now_ms: int) -> list[bytes]:
        """Return the records of the sessions `timesteps` later.

        `state` is (batch, `spec.state_size`) and `outputs`, those of the last timestep, (batch, `spec.output_size`).
        """
        rows = self._whole.copy().view(self._layout.fields)  # copied as bytes: what is no field goes along
        rows["step"] += np.uint64(timesteps)
        rows["nonce"] = nonce
        rows["updated_at_ms"] = now_ms
        rows["outputs_n"] = FLOAT_BYTES * outputs.shape[1]
        rows["state"] = _bytes(state)
        rows["outputs"] = _bytes(outputs)
        whole, size = rows.tobytes(), self._layout.size
        return [whole[start : start + size] for start in range(0, len(whole), size)]


def _bytes(floats: Floats) -> NDArray[np.uint8]:
    return np.ascontiguousarray(floats, "<f4").view(np.uint8)
