"""`SharedBuckets` on Redis: one key per bucket, one script call for all that a process has to settle."""

import math
from collections.abc import Sequence

from service.adapters.redis_exchanges import TAG, Exchanges
from service.adapters.redis_link import Script, bulk
from service.core.rate import Charge

_MICROSECONDS = 1_000_000


class RedisRates:
    """See `service.core.rate.SharedBuckets`.

    A script whose reply was lost is sent once more, and may take twice: what was spent in the tenth of a second before
    a connection failed then counts double, to the disadvantage of who spent it and for that moment only.
    """

    def __init__(self, link: Exchanges) -> None:
        self._link = link
        self._charge = Script("charge")

    async def charge(self, charges: Sequence[Charge]) -> list[float]:
        bulks = [bulk(_key(charge.name)) for charge in charges]
        for _, cost, rate, age_s in charges:
            bulks += (_microseconds(cost / rate), _microseconds(age_s))
        replies, _ = await self._link.run(self._charge, len(charges), 2 * len(charges), bulks)
        return [backlog / _MICROSECONDS for backlog in replies]


def _microseconds(seconds: float) -> bytes:
    return bulk(b"%d" % math.ceil(seconds * _MICROSECONDS))


def _key(name: str) -> bytes:
    """Return the key of a bucket. On a cluster they are in one slot, for one script to settle them."""
    return f"conveyor:rate:{{{TAG}}}:{name}".encode()
