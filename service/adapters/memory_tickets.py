"""`Tickets` in the process, for a service whose sessions are there too."""

import time
from collections.abc import Callable


class MemoryTickets:
    """See `service.core.tickets.Tickets`. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[bytes, tuple[bytes, float]] = {}

    async def keep(self, digest: bytes, bearer: bytes, ttl_s: float) -> None:
        now = self._clock()
        while self._kept and self._kept[oldest := next(iter(self._kept))][1] <= now:
            del self._kept[oldest]  # they expire in the order in which they were issued
        self._kept[digest] = (bearer, now + ttl_s)

    async def take(self, digest: bytes) -> bytes | None:
        bearer, expires = self._kept.pop(digest, (None, 0.0))
        return bearer if expires > self._clock() else None
