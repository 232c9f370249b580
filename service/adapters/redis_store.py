"""`StateStore` on Redis: one value per session, one script call per batch."""

import base64
import json
import re
import zlib
from collections.abc import Awaitable, Sequence
from functools import lru_cache
from typing import Any

from service.adapters.redis_link import RedisLink, Reply, Script, bulk
from service.adapters.redis_url import shown
from service.core.errors import ConveyorError, InvalidRequest, OutcomeUnknown, StoreFull, StoreUnavailable
from service.core.ports import Commit, Lost, Page, StoreHealth
from service.core.record import EPOCH_SLICE, HEADER, NONCE_SLICE, VERSION_SLICE, readable, step_of, ttl_s_of
from service.core.session import Session, SessionKey

HASH_TAGS = 256
"""Count of hash tags. Fixed for the life of a data set: it is part of every key."""

_WRITTEN = 1
_MISSING = 0
_SCAN_ROUNDS = 100


class RedisStore:
    """See `service.core.ports.StateStore`.

    A commit may be sent twice when a connection fails. That is harmless: the second finds the epoch and step changed
    by the first and is handed the stored record, whose nonce says that it was ours. Where others have written since,
    so that it no longer tells, the outcome is called unknown. A write that got stuck on its way can never overtake a
    later one.
    """

    def __init__(self, url: str, *, timeout_s: float = 2.0, description: str | None = None) -> None:
        self.link = self._link = RedisLink(url, timeout_s=timeout_s)
        """For what else this Redis keeps, beside sessions."""
        self._commit = Script("commit")
        self._create = Script("create")
        self._description = description or f"Redis at {shown(url)}"

    async def load(self, keys: Sequence[SessionKey]) -> list[bytes | None]:
        values: list[bytes | None] = await self._certain(self._link.many(b"MGET", [_key_bulk(key) for key in keys]))
        return values

    async def commit(self, commits: Sequence[Commit]) -> list[Lost | ConveyorError | None]:
        bulks = [_key_bulk(commit.key) for commit in commits]
        for _, version, record in commits:
            bulks += (_VERSION_HEAD, version, _record_head(len(record)), record, _ttl_tail(ttl_s_of(record)))
        replies, repeated = await self._link.run(self._commit, len(commits), 3 * len(commits), bulks)
        if replies == [_WRITTEN] * len(commits):
            return [None] * len(commits)  # nearly always
        return [
            _verdict(reply, commit.version, commit.record, repeated)
            for reply, commit in zip(replies, commits, strict=True)
        ]

    async def create(self, key: SessionKey, record: bytes) -> bytes | None:
        bulks = (_key_bulk(key), bulk(record), bulk(b"%d" % (ttl_s_of(record) * 1000)))
        reply, repeated = await self._link.run(self._create, 1, 2, bulks)
        verdict = _verdict(reply, b"", record, repeated)
        if isinstance(verdict, ConveyorError):
            raise verdict
        return verdict.current if verdict else None

    async def delete(self, key: SessionKey) -> bool:
        try:
            return bool(await self._link.call_once("DEL", redis_key(key)))
        except OutcomeUnknown:
            # Not sent again: somebody may have opened a session of that name since.
            if await self._read("EXISTS", redis_key(key)):
                raise
            return True

    async def scan(self, tenant: str, model: str | None, cursor: str | None, limit: int) -> Page:
        prefix = "conveyor:{*}:" + re.sub(r"([\\*?\[\]])", r"\\\1", tenant) + ":"
        position, waiting = _read_cursor(cursor)
        sessions: list[tuple[str, Session]] = []
        for _ in range(_SCAN_ROUNDS):
            if not waiting and position is not None:
                count = max(limit - len(sessions), 10)
                reply = await self._read("SCAN", position, "MATCH", prefix + "*", "COUNT", count)
                position = int(reply[0]) or None
                waiting = [key.decode().split(":", 3)[3] for key in reply[1]]
            room = limit - len(sessions)
            ids, waiting = waiting[:room], waiting[room:]
            if ids:
                found = zip(ids, await self.load([SessionKey(tenant, id_) for id_ in ids]), strict=True)
                sessions += [
                    (id_, session)
                    for id_, record in found
                    if record is not None and (session := readable(record, model)) is not None
                ]
            if len(sessions) == limit or (position is None and not waiting):
                break
        return Page(sessions, _write_cursor(position, waiting))

    async def health(self) -> StoreHealth:
        info = _fields(await self._read("INFO"))
        warnings = []
        if (policy := info.get("maxmemory_policy", "noeviction")) != "noeviction":
            warnings.append(
                f"Redis evicts keys when memory is short (maxmemory-policy {policy}): sessions can vanish. "
                "Set maxmemory-policy noeviction"
            )
        if info.get("aof_enabled") == "0":
            warnings.append("Redis keeps no append-only file: a restart of Redis loses sessions. Set appendonly yes")
        return StoreHealth(f"{self._description}, version {info.get('redis_version', 'unknown')}", warnings)

    async def close(self) -> None:
        await self._link.close()

    async def _read(self, *command: Any) -> Any:
        """Send a command that changes nothing."""
        return await self._certain(self._link.call(*command))

    async def _certain(self, reading: Awaitable[Reply]) -> Any:
        """Return what was read: where reading fails, nothing is in doubt."""
        try:
            return (await reading).value
        except OutcomeUnknown as error:
            raise StoreUnavailable(f"Redis did not answer: {error.__cause__ or error}") from error


def redis_key(key: SessionKey) -> str:
    """Return the name of a session's value. The hash tag in braces decides its slot on a cluster."""
    tag = zlib.crc32(f"{key.tenant}:{key.session_id}".encode()) % HASH_TAGS
    return f"conveyor:{{{tag}}}:{key.tenant}:{key.session_id}"


@lru_cache(maxsize=65_536)
def _key_bulk(key: SessionKey) -> bytes:
    return bulk(redis_key(key).encode())


# A commit's arguments (see commit.lua) as RESP: between a version, a record and a time to live stands nothing but what
# is the same for every step of a model.
_VERSION_HEAD = b"$16\r\n"


@lru_cache
def _record_head(size: int) -> bytes:
    return b"\r\n$%d\r\n" % size


@lru_cache
def _ttl_tail(ttl_s: int) -> bytes:
    return b"\r\n" + bulk(b"%d" % (ttl_s * 1000))


def _verdict(reply: Any, version: bytes, record: bytes, repeated: bool) -> Lost | ConveyorError | None:
    """Read what a script says of one key, which had `version` (empty: was free) and was to become `record`."""
    if reply == _WRITTEN:
        return None
    if reply == _MISSING:
        return Lost(None)
    if isinstance(reply, list):
        message = reply[0].decode(errors="replace")
        return StoreFull(message) if "OOM" in message else StoreUnavailable(f"Redis refused the write: {message}")
    stored: bytes = reply
    if stored[EPOCH_SLICE] == record[EPOCH_SLICE] != version[:8]:
        return None  # nobody else has an epoch that was drawn for this very write
    if stored[VERSION_SLICE] == record[VERSION_SLICE] and stored[NONCE_SLICE] == record[NONCE_SLICE]:
        return None
    if (
        repeated
        and len(stored) >= HEADER.size
        and (stored[EPOCH_SLICE] != version[:8] or step_of(stored) > step_of(record))
    ):
        return OutcomeUnknown(
            f"the session has moved on to step {step_of(stored)} since a write whose reply was lost",
            current_step=step_of(stored),
        )
    return Lost(stored)


def _read_cursor(cursor: str | None) -> tuple[int | None, list[str]]:
    if cursor is None:
        return 0, []
    try:
        position, *waiting = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        "".join(waiting).encode()  # nothing but strings, and no half of a surrogate pair among them
        if position is None or (type(position) is int and 0 <= position < 2**64):
            return position, waiting
    except (ValueError, TypeError, RecursionError):
        pass
    raise InvalidRequest(f"the cursor {cursor[:80]!r} is not one that a listing handed out")


def _write_cursor(position: int | None, waiting: list[str]) -> str | None:
    """A cursor holds where to scan on and the few ids that were scanned and did not fit into the page."""
    if position is None and not waiting:
        return None
    return base64.urlsafe_b64encode(json.dumps([position, *waiting]).encode()).decode()


def _fields(info: Any) -> dict[str, str]:
    lines = (info if isinstance(info, str) else info.decode()).splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)
