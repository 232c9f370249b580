"""`Tickets` on Redis: good for once among all processes that share it."""

from service.adapters.redis_exchanges import TAG, Exchanges
from service.core.errors import OutcomeUnknown, StoreUnavailable


class RedisTickets:
    """See `service.core.tickets.Tickets`. GETDEL takes a ticket, so that of any number of takers one gets it."""

    def __init__(self, link: Exchanges) -> None:
        self._link = link

    async def keep(self, digest: bytes, bearer: bytes, ttl_s: float) -> None:
        await self._link.call("SET", _key(digest), bearer, "PX", round(ttl_s * 1000))

    async def take(self, digest: bytes) -> bytes | None:
        try:
            # Sent once: a second time would find nothing where the first one's reply was lost.
            bearer: bytes | None = await self._link.call_once("GETDEL", _key(digest))
        except OutcomeUnknown as error:
            raise StoreUnavailable("Redis did not answer, and the ticket may be used up: ask for another") from error
        return bearer


def _key(digest: bytes) -> bytes:
    return b"conveyor:ticket:{%d}:" % TAG + digest
