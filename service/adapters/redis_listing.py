"""A tenant's sessions in pages, from Redis's SCAN; the cursor carries all there is to know."""

import base64
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from service.core.errors import ConveyorError, InvalidRequest
from service.core.ports import Page
from service.core.record import readable
from service.core.session import Session, SessionKey

_SCAN_ROUNDS = 100


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
    for _ in range(_SCAN_ROUNDS):
        if not waiting and position is not None:
            keys, position = await source.scan(position, pattern, max(limit - len(sessions), 10))
            waiting = [key.decode().split(":", 3)[3] for key in keys]
        room = limit - len(sessions)
        ids, waiting = waiting[:room], waiting[room:]
        if ids:
            found = await source.load([SessionKey(tenant, id_) for id_ in ids])
            for id_, record in zip(ids, found, strict=True):
                if isinstance(record, ConveyorError):
                    raise record
                if record is not None and (session := readable(record, model)) is not None:
                    sessions.append((id_, session))
        if len(sessions) == limit or (position is None and not waiting):
            break
    return Page(sessions, _write_cursor(position, waiting))


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
