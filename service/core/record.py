"""A session as bytes: what stores take and give, and what `GET …/state` hands out. Redis holds it packed.

Little-endian. The epoch, the step and the nonce stand at fixed places (`VERSION_SLICE`), so that a script in the store
can compare them without knowing the rest. Epoch and step alone would not do: a store that fails over may lose the last
steps, and others then take their numbers.

======  =====  ============================================================
offset  bytes  what
======  =====  ============================================================
0       3      ``CVY``
3       1      format, 1
4       8      epoch
12      8      step
20      8      nonce
28      8      updated at, Unix milliseconds
36      4      time to live, seconds
40      8      digest of the model file
48      1      length of the model's name in UTF-8
49      1      length of the model's version in UTF-8
50      4      length of the states
54      4      length of the outputs
58      …      name, version, states (float32), outputs (float32), and no more
======  =====  ============================================================
"""

import struct
import sys

import numpy as np

from service.core.errors import InvalidRecord
from service.core.session import ModelRef, Session

MAGIC = b"CVY"
FORMAT = 1
PACKED = 2
"""The format of what `service.core.packing` makes of a record, on its way to Redis."""
FORMAT_AT = 3
EPOCH_SLICE = slice(4, 12)
VERSION_SLICE = slice(4, 28)
NONCE_SLICE = slice(20, 28)
TTL_SLICE = slice(36, 40)
LENGTHS_SLICE = slice(48, 58)
CHANGED_AT = {"step": 12, "nonce": 20, "updated_at_ms": 28, "outputs_n": 54}
"""Where in a record the numbers stand that a step changes."""
CHANGED_SLICE = slice(12, 36)
CHANGED = struct.Struct("<QQQ")
"""The first three of them."""

LENGTHS = struct.Struct("<BBII")
HEADER = struct.Struct("<3sBQQQQI8sBBII")
FLOAT_BYTES = 4
_STEP = struct.Struct("<12xQ")
_TTL_S = struct.Struct("<36xI")
_LIFE = struct.Struct("<28xQI")


def encode(session: Session) -> bytes:
    """Return the record of a session."""
    name = session.model.name.encode()
    version = session.model.version.encode()
    header = HEADER.pack(
        MAGIC,
        FORMAT,
        session.epoch,
        session.step,
        session.nonce,
        session.updated_at_ms,
        session.ttl_s,
        session.model.digest,
        len(name),
        len(version),
        len(session.state),
        len(session.outputs),
    )
    return b"".join((header, name, version, _little_endian(session.state), _little_endian(session.outputs)))


def step_of(record: bytes) -> int:
    return int(_STEP.unpack_from(record)[0])


def ttl_s_of(record: bytes) -> int:
    return int(_TTL_S.unpack_from(record)[0])


def life_of(record: bytes | memoryview) -> tuple[int, int]:
    """Return when a record was updated, and when it expires, both Unix time in milliseconds."""
    updated_at_ms, ttl_s = _LIFE.unpack_from(record)
    return updated_at_ms, updated_at_ms + 1000 * ttl_s


def kind_of(record: bytes) -> bytes:
    """Return what the records of one model file have in common, and no others: format, digest, name and version."""
    if len(record) < HEADER.size:
        return b""
    return record[:4] + record[40:50] + record[HEADER.size : HEADER.size + record[48] + record[49]]


def decode(record: bytes) -> Session:
    """Read a record.

    Raises `InvalidRecord` for bytes that are no record, of another format, cut short or too long, or that hold
    numbers which are not finite.
    """
    if len(record) < HEADER.size:
        raise InvalidRecord(f"a record has at least {HEADER.size} bytes, this has {len(record)}")
    magic, form, epoch, step, nonce, updated, ttl, digest, name_n, version_n, state_n, outputs_n = HEADER.unpack_from(
        record
    )
    if magic != MAGIC:
        raise InvalidRecord(f"a record begins with {MAGIC!r}, this with {magic!r}")
    if form != FORMAT:
        whose = ", which only the store sees: it is damaged, or was copied out of Redis" if form == PACKED else ""
        raise InvalidRecord(f"the record's format is {form}{whose}; this release reads {FORMAT}")
    version_at = HEADER.size + name_n
    state_at = version_at + version_n
    outputs_at = state_at + state_n
    end = outputs_at + outputs_n
    if end != len(record) or state_n % FLOAT_BYTES or outputs_n % FLOAT_BYTES:
        raise InvalidRecord(f"the record's lengths add up to {end} bytes, it has {len(record)}")
    if end > state_at and not np.isfinite(np.frombuffer(record, "<f4", offset=state_at)).all():
        raise InvalidRecord("the record holds numbers that are not finite")
    try:
        model = ModelRef(record[HEADER.size : version_at].decode(), record[version_at:state_at].decode(), digest)
    except UnicodeDecodeError as error:
        raise InvalidRecord(f"the model's name in the record is not UTF-8: {error}") from None
    return Session(
        model=model,
        epoch=epoch,
        step=step,
        nonce=nonce,
        updated_at_ms=updated,
        ttl_s=ttl,
        state=_little_endian(record[state_at:outputs_at]),
        outputs=_little_endian(record[outputs_at:end]),
    )


def readable(record: bytes, model: str | None) -> Session | None:
    """Return the session in a record, or None where it cannot be read or is of another model than asked for."""
    try:
        session = decode(record)
    except InvalidRecord:
        return None
    return session if model in (None, session.model.name) else None


def _little_endian(floats: bytes) -> bytes:
    """Swap float32 bytes between the record's order and the machine's; most machines need no swap."""
    if sys.byteorder == "little":
        return floats
    return np.frombuffer(floats, np.float32).byteswap().tobytes()
