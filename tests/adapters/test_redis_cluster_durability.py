"""What is confirmed where a slot moves: the fence behind a write has a slot, too, and it may be the one that moves."""

import signal
from collections.abc import AsyncIterator, Iterator

import pytest

from service.adapters.redis_cluster_store import RedisClusterStore
from service.adapters.redis_durability import FENCE
from service.adapters.redis_link import NotConfirmed
from service.adapters.redis_records import redis_key, tag_of
from service.core.session import SessionKey
from tests.adapters.test_redis_cluster import KEYS, commits, owner, slot_of
from tests.contracts.test_store import session
from tests.redis_clusters import ClusterDeployment, ClusterNode, cluster_deployment

LAST = KEYS[-1]
"""Its slot moves, and behind it the fence of its node is sent."""


@pytest.fixture(scope="module")
def deployment() -> Iterator[ClusterDeployment]:
    with cluster_deployment(masters=2) as deployment:
        yield deployment


@pytest.fixture
async def store(cluster: ClusterDeployment) -> AsyncIterator[RedisClusterStore]:
    store = RedisClusterStore(cluster.url, timeout_s=5.0, durability="replica")
    for key in KEYS:
        assert await store.create(key, session(0)) is None
    yield store
    await store.close()


@pytest.fixture
def here(cluster: ClusterDeployment) -> ClusterNode:
    return owner(cluster, LAST)


@pytest.fixture
def there(cluster: ClusterDeployment, here: ClusterNode) -> ClusterNode:
    return next(node for node in cluster.masters() if node is not here)


@pytest.fixture(autouse=True)
async def moving(
    store: RedisClusterStore, cluster: ClusterDeployment, here: ClusterNode, there: ClusterNode
) -> AsyncIterator[None]:
    """The slot of `LAST` is on its way; all of its keys are still here. In the end it is there."""
    assert await store.commit(commits(KEYS, 0)) == [None] * len(KEYS)
    slot = str(slot_of(LAST))
    cluster.command(there, "CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.id_of(here))
    cluster.command(here, "CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.id_of(there))
    yield
    finish(cluster, here, there)


def finish(cluster: ClusterDeployment, here: ClusterNode, there: ClusterNode) -> None:
    if owner(cluster, LAST) is here:
        slot = str(slot_of(LAST))
        if keys := cluster.command(here, "CLUSTER", "GETKEYSINSLOT", slot, "100"):
            cluster.migrate(here, there, *keys)
        for node in (there, here):
            cluster.command(node, "CLUSTER", "SETSLOT", slot, "NODE", cluster.id_of(there))


def fence(key: SessionKey) -> str:
    return FENCE % tag_of(key)


async def test_where_the_fence_has_gone_ahead_of_the_sessions_another_one_confirms(
    store: RedisClusterStore, cluster: ClusterDeployment, here: ClusterNode, there: ClusterNode
) -> None:
    cluster.migrate(here, there, fence(LAST))
    assert await store.commit(commits(KEYS, 1)) == [None] * len(KEYS)
    assert await store.load(KEYS) == [session(2)] * len(KEYS)


async def test_a_session_that_has_gone_ahead_is_confirmed_where_it_is(
    store: RedisClusterStore, cluster: ClusterDeployment, here: ClusterNode, there: ClusterNode
) -> None:
    """It is asked for there, and the node does not serve its slot yet, nor the fence."""
    cluster.migrate(here, there, redis_key(LAST))
    assert await store.commit(commits([LAST], 1)) == [None]
    assert await store.commit(commits(KEYS[:-1], 1)) == [None] * (len(KEYS) - 1)
    assert await store.load([LAST]) == [session(2)]
    assert await store.delete(LAST)


async def test_where_the_slot_has_moved_the_others_of_its_node_are_confirmed(
    store: RedisClusterStore, cluster: ClusterDeployment, here: ClusterNode, there: ClusterNode
) -> None:
    """The node refuses the last call and the fence behind it; what came before is answered."""
    finish(cluster, here, there)
    assert await store.commit(commits(KEYS, 1)) == [None] * len(KEYS)
    assert await store.load(KEYS) == [session(2)] * len(KEYS)


async def test_what_no_replica_has_is_not_confirmed_by_another_fence_either(
    store: RedisClusterStore, cluster: ClusterDeployment, here: ClusterNode, there: ClusterNode
) -> None:
    cluster.migrate(here, there, fence(LAST))
    replica = cluster.replica_of(here)
    ours = [key for key in KEYS if owner(cluster, key) is here]
    replica.signal(signal.SIGSTOP)
    verdicts = await store.commit(commits(ours, 1))
    replica.signal(signal.SIGCONT)
    assert {type(verdict) for verdict in verdicts} == {NotConfirmed}
