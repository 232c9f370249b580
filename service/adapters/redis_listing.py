"""A tenant's sessions in pages, from Redis's SCAN; the cursor carries all there is to know."""

import base64
import json
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from service.core.errors import ConveyorError, InvalidRequest
from service.core.ports import Page
from service.core.record import readable
from service.core.session import Session, SessionKey

_PATIENCE_S = 0.5
"""After so long a page is handed out as it is, be it empty: the next request scans on."""
_LEAST, _MOST = 10, 1000
"""Keys that one SCAN looks at. Redis answers nobody else meanwhile: a thousand take it about a millisecond."""
_TOGETHER = 100
"""Records that are loaded in one piece: no step gets its turn while they are being read."""


class Scanned(NamedTuple):
    """Keys that a scan found, and where it goes on; None at its end."""

    keys: list[bytes]
    position: Any


class Source(NamedTuple):
    """Where a listing comes from. A position is JSON, and `valid` tells those that `scan` hands out."""

    start: Any
    valid: Callable[[Any], bool]
    scan: Callable[[Any, str, int], Awaitable[Scanned]]
    """Scans on from a position for keys like a pattern, looking at about so many."""
    load: Callable[[Sequence[SessionKey]], Awaitable[Sequence[bytes | ConveyorError | None]]]


async def page(source: Source, tenant: str, model: str | None, cursor: str | None, limit: int) -> Page:
    """See `StateStore.scan`."""
    pattern = "conveyor:{*}:" + re.sub(r"([\\*?\[\]])", r"\\\1", tenant) + ":*"
    position, waiting = _read_cursor(cursor, source)
    sessions: list[tuple[str, Session]] = []
    looked = matched = 0
    until = time.monotonic() + _PATIENCE_S
    while (room := limit - len(sessions)) and (waiting or position is not None):
        if not waiting:
            count = _keys_to_look_at(room, looked, matched)
            keys, position = await source.scan(position, pattern, count)
            waiting = [key.decode().split(":", 3)[3] for key in keys]
            looked, matched = looked + count, matched + len(waiting)
        ids, waiting = waiting[:room], waiting[room:]
        sessions += await _load(source, tenant, ids, model)
        if time.monotonic() > until:
            break
    return Page(sessions, _write_cursor(position, waiting))


def _keys_to_look_at(room: int, looked: int, matched: int) -> int:
    """Return how many keys to scan for `room` more, where `matched` of those `looked` at were the tenant's.

    Somewhat too few where the tenant is one of many: what is found beyond the page has to go into the cursor, and
    that into a URL.
    """
    expected = room * looked * 4 // (5 * max(matched, 1))
    return min(max(room, expected, _LEAST), _MOST)


async def _load(source: Source, tenant: str, ids: Sequence[str], model: str | None) -> list[tuple[str, Session]]:
    """Return those of a tenant's sessions that are there, can be read, and are of the model that is asked for."""
    sessions = []
    for first in range(0, len(ids), _TOGETHER):
        some = ids[first : first + _TOGETHER]
        for id_, record in zip(some, await source.load([SessionKey(tenant, id_) for id_ in some]), strict=True):
            if isinstance(record, ConveyorError):
                raise record
            if record is not None and (session := readable(record, model)) is not None:
                sessions.append((id_, session))
    return sessions


def scan_position(value: Any) -> bool:
    """Return whether this is a cursor of SCAN itself."""
    return type(value) is int and 0 <= value < 2**64


def _read_cursor(cursor: str | None, source: Source) -> tuple[Any, list[str]]:
    if cursor is None:
        return source.start, []
    try:
        position, *waiting = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        "".join(waiting).encode()  # nothing but strings, and no half of a surrogate pair among them
        if position is None or source.valid(position):
            return position, waiting
    except (ValueError, TypeError, RecursionError):
        pass
    raise InvalidRequest(f"the cursor {cursor[:80]!r} is not one that a listing handed out")


def _write_cursor(position: Any, waiting: list[str]) -> str | None:
    """A cursor holds where to scan on and the few ids that were scanned and did not fit into the page."""
    if position is None and not waiting:
        return None
    return base64.urlsafe_b64encode(json.dumps([position, *waiting]).encode()).decode()
