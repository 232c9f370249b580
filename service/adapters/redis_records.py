"""Sessions in Redis: their keys, a commit's arguments, and what the scripts' replies mean.

Redis holds records packed (`service.core.packing`), or plain where that takes no more memory. Their headers are the
same, so what is read there may be read of either.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any
from weakref import WeakKeyDictionary
from zlib import crc32

import numpy as np

from service.adapters.redis_link import DEMOTED, bulk
from service.core.columns import Rows
from service.core.errors import ConveyorError, MovedOn, StoreFull, StoreUnavailable
from service.core.packed import pack, unpack
from service.core.packing import packing_of
from service.core.ports import Commit, Lost
from service.core.record import EPOCH_SLICE, HEADER, TTL_SLICE, VERSION_SLICE, step_of, ttl_s_of
from service.core.roster import Roster
from service.core.session import SessionKey
from service.core.writes import Writes

HASH_TAGS = 256
"""Count of hash tags. Fixed for the life of a data set: it is part of every key."""
_BEGINNINGS = [b"conveyor:{%d}:" % tag for tag in range(HASH_TAGS)]

WRITTEN = 1
_MISSING = 0


def tag_of(key: SessionKey) -> int:
    """Return the hash tag of a session, 0 to `HASH_TAGS` - 1."""
    return crc32(f"{key.tenant}:{key.session_id}".encode()) % HASH_TAGS


def redis_key(key: SessionKey) -> str:
    """Return the name of a session's value. The hash tag in braces decides its slot on a cluster."""
    return f"conveyor:{{{tag_of(key)}}}:{key.tenant}:{key.session_id}"


def key_bulk(key: SessionKey) -> bytes:
    """Return the name of a session's value as it goes over the wire: `bulk` of `redis_key`, in half the time."""
    name = ("%s:%s" % key).encode()  # noqa: UP031  # the fastest way to join them
    beginning = _BEGINNINGS[crc32(name) % HASH_TAGS]
    return b"$%d\r\n%b%b\r\n" % (len(beginning) + len(name), beginning, name)


_names: WeakKeyDictionary[Roster, bytes] = WeakKeyDictionary()
"""Those of the sessions of rosters that come again, as they go over the wire, as long as these are remembered."""


def key_bulks(keys: Sequence[SessionKey]) -> bytes:
    """Return many names one after the other."""
    if not isinstance(keys, Roster) or not keys.comes_again:
        return b"".join(map(key_bulk, keys))
    names = _names.get(keys)
    if names is None:
        names = _names[keys] = b"".join(map(key_bulk, keys))
    return names


def commit_values(commits: Iterable[Commit]) -> list[bytes]:
    """Return the records of commits as Redis is to hold them."""
    return pack([commit.record for commit in commits])


def commit_bulks(commits: Sequence[Commit], values: Sequence[bytes]) -> list[bytes]:
    """Return the keys and arguments of commit.lua as they go over the wire. For the values see `commit_values`."""
    bulks = [key_bulk(commit.key) for commit in commits]
    for (_, version, _), value in zip(commits, values, strict=True):
        bulks += (_VERSION_HEAD, version, _value_head(len(value)), value, _ttl_tail(ttl_s_of(value)))
    return bulks


def write_arguments(writes: Writes) -> memoryview | None:
    """Return the arguments that `commit_bulks` does, side by side as the writes are, or None where these are not alike.

    The keys before them are `key_bulks`.
    """
    records = writes.records
    lives = records[:, TTL_SLICE]
    if len(writes) > 1 and (lives != lives[0]).any():
        return None
    packing = packing_of(records)
    size = records.shape[1] if packing is None else packing.packed_size
    heads = _bytes(_VERSION_HEAD), writes.versions, _bytes(_value_head(size))
    tail = _bytes(_ttl_tail(ttl_s_of(records[0].tobytes())))
    starts = list(accumulate((part.shape[-1] for part in heads), initial=0))
    value = slice(starts[-1], starts[-1] + size)
    arguments = np.empty((len(writes), value.stop + len(tail)), np.uint8)
    if packing is None:
        arguments[:, value] = records
    elif not packing.pack(records, arguments[:, value]).all():
        return None
    for part, (start, end) in zip(heads, pairwise(starts), strict=True):
        arguments[:, start:end] = part
    arguments[:, value.stop :] = tail
    return arguments.data


def _bytes(text: bytes) -> Rows:
    return np.frombuffer(text, np.uint8)


def create_bulks(key: SessionKey, record: bytes) -> tuple[bytes, ...]:
    """Return the key and arguments of create.lua as they go over the wire."""
    (value,) = pack([record])
    return key_bulk(key), bulk(value), bulk(b"%d" % (ttl_s_of(record) * 1000))


# Between a version, a value and a time to live stands nothing but what is the same for every step of a model.
_VERSION_HEAD = b"$24\r\n"


@lru_cache
def _value_head(size: int) -> bytes:
    return b"\r\n$%d\r\n" % size


@lru_cache
def _ttl_tail(ttl_s: int) -> bytes:
    return b"\r\n" + bulk(b"%d" % (ttl_s * 1000))


def verdict(reply: Any, version: bytes, record: bytes, repeated: bool) -> Lost | ConveyorError | None:
    """Read what a script says of one key, which had `version` (empty: was free) and was to become `record`."""
    if reply == WRITTEN:
        return None
    if reply == _MISSING:
        return Lost(None)
    if isinstance(reply, list):
        message = reply[0].decode(errors="replace")
        return StoreFull(message) if "OOM" in message else StoreUnavailable(f"Redis refused the write: {message}")
    stored: bytes = reply
    if stored[EPOCH_SLICE] == record[EPOCH_SLICE] != version[:8]:
        return None  # nobody else has an epoch that was drawn for this very write
    if stored[VERSION_SLICE] == record[VERSION_SLICE]:
        return None
    if (
        repeated
        and len(stored) >= HEADER.size
        and (stored[EPOCH_SLICE] != version[:8] or step_of(stored) > step_of(record))
    ):
        return MovedOn(
            f"the session has moved on to step {step_of(stored)} since a write whose reply was lost",
            stored[VERSION_SLICE],
            current_step=step_of(stored),
        )
    return Lost(stored)


def doubted(made: Lost | ConveyorError | None, doubt: ConveyorError) -> Lost | ConveyorError:
    """Return a verdict that Redis has not confirmed: what was written, or proves that of another, is in doubt."""
    return doubt if made is None or isinstance(made, MovedOn) else made


def unpacked(verdicts: Sequence[Lost | ConveyorError | None]) -> list[Lost | ConveyorError | None]:
    """Return verdicts with the records that they tell of unpacked."""
    records = unpack([made.current if isinstance(made, Lost) else None for made in verdicts])
    return [Lost(record) if isinstance(made, Lost) else made for made, record in zip(verdicts, records, strict=True)]


def demoted(replies: Iterable[Any]) -> bool:
    """Return whether a script was refused a write because its server is not the master."""
    return any(isinstance(reply, list) and reply[0].decode(errors="replace").startswith(DEMOTED) for reply in replies)
