"""Which store a URL means."""

from service.adapters.redis_address import CLUSTER
from service.adapters.redis_cluster_store import RedisClusterStore
from service.adapters.redis_durability import Durability
from service.adapters.redis_store import RedisStore


def open_redis(
    url: str, *, timeout_s: float, description: str | None, durability: Durability
) -> RedisStore | RedisClusterStore:
    """Return the store at a URL of `redis_address.SCHEMES`. Raises ValueError for one that cannot be read."""
    store = RedisClusterStore if url.startswith(CLUSTER) else RedisStore
    return store(url, timeout_s=timeout_s, description=description, durability=durability)
