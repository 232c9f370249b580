"""`Places` in the process, for a service whose sessions are there too."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import NamedTuple

from service.core.quota import BEING_MADE_S, LOOK_AT_ONCE, Look, Place
from service.core.session import SessionKey


class _Taken(NamedTuple):
    look_at: float
    begun: int = 0
    """How often a session has been begun since one was last known to be there, or not to be."""


class MemoryPlaces:
    """See `service.core.quota.Places`. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tenants: defaultdict[str, dict[str, _Taken]] = defaultdict(dict)

    async def take(self, key: SessionKey, limit: int) -> list[Place] | None:
        taken, now = self._tenants[key.tenant], self._clock()
        if key.session_id in taken or len(taken) < limit:
            begun = taken[key.session_id].begun if key.session_id in taken else 0
            taken[key.session_id] = _Taken(now + BEING_MADE_S, begun + 1)
            return None
        due = [Place(session_id, look_at) for session_id, (look_at, _) in taken.items() if look_at <= now]
        return sorted(due, key=attrgetter("look_at"))[:LOOK_AT_ONCE]

    async def keep(self, key: SessionKey, look_in_s: int) -> None:
        self._tenants[key.tenant][key.session_id] = _Taken(self._clock() + look_in_s)

    async def release(self, key: SessionKey) -> None:
        self._make_due(key, begun=0)

    async def give_up(self, key: SessionKey) -> None:
        self._make_due(key, begun=1)

    async def settle(self, tenant: str, looks: Sequence[Look]) -> None:
        taken = self._tenants[tenant]
        for (session_id, look_at), again_in_s in looks:
            if session_id not in taken or taken[session_id].look_at != look_at:
                continue
            if again_in_s is None:
                del taken[session_id]
            else:
                taken[session_id] = _Taken(self._clock() + again_in_s)

    def _make_due(self, key: SessionKey, begun: int) -> None:
        taken = self._tenants[key.tenant]
        if key.session_id in taken and taken[key.session_id].begun == begun:
            taken[key.session_id] = _Taken(0.0)
