"""`SharedBuckets` in the process, for a service that is one process."""

import time
from collections.abc import Callable, Sequence

from service.core.rate import Charge


class MemoryRates:
    """See `service.core.rate.SharedBuckets`. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full_at: dict[str, float] = {}

    async def charge(self, charges: Sequence[Charge]) -> list[float]:
        now = self._clock()
        self._full_at = {name: full_at for name, full_at in self._full_at.items() if full_at > now}
        for name, cost, rate, age_s in charges:
            self._full_at[name] = self._full_at.get(name, now - age_s) + cost / rate
        return [max(0.0, self._full_at[charge.name] - now) for charge in charges]
