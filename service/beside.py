"""What is kept beside the sessions, and where they are: in the same Redis, or in the process."""

from typing import NamedTuple

from service.adapters.memory_places import MemoryPlaces
from service.adapters.memory_rates import MemoryRates
from service.adapters.memory_tickets import MemoryTickets
from service.adapters.redis_cluster_store import RedisClusterStore
from service.adapters.redis_places import RedisPlaces
from service.adapters.redis_rates import RedisRates
from service.adapters.redis_store import RedisStore
from service.adapters.redis_tickets import RedisTickets
from service.core.ports import StateStore
from service.core.quota import Places
from service.core.rate import SharedBuckets
from service.core.tickets import Tickets


class Beside(NamedTuple):
    """Each has a contract suite in ``tests/contracts``."""

    tickets: Tickets
    buckets: SharedBuckets
    places: Places


def beside(store: StateStore) -> Beside:
    """Return what goes with a store."""
    if isinstance(store, RedisStore | RedisClusterStore):
        return Beside(RedisTickets(store.link), RedisRates(store.link), RedisPlaces(store.link))
    return Beside(MemoryTickets(), MemoryRates(), MemoryPlaces())
