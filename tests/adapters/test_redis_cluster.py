"""A cluster whose slots move and whose nodes go: every key has its own outcome."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing

import pytest

from service.adapters.redis_cluster_store import RedisClusterStore
from service.adapters.redis_open import open_redis
from service.adapters.redis_records import redis_key, tag_of
from service.adapters.redis_slots import SLOT_OF_TAG
from service.adapters.redis_topology import LONGEST_PAUSE_S
from service.core.errors import OutcomeUnknown, StoreUnavailable
from service.core.ports import Commit
from service.core.record import VERSION_SLICE
from service.core.session import SessionKey
from tests.contracts.test_store import session
from tests.redis_clusters import ClusterDeployment, ClusterNode, cluster_deployment
from tests.servers import RedisServer

PATIENT_S = 2.0
KEYS = [SessionKey("cluster", str(i)) for i in range(40)]


@pytest.fixture(scope="module")
def deployment() -> Iterator[ClusterDeployment]:
    with cluster_deployment(masters=3, replicas=False) as deployment:
        yield deployment


@pytest.fixture
async def store(cluster: ClusterDeployment) -> AsyncIterator[RedisClusterStore]:
    store = RedisClusterStore(cluster.url, timeout_s=1.0)
    for key in KEYS:
        assert await store.create(key, session(0)) is None
    yield store
    await store.close()


@pytest.fixture
async def patient(cluster: ClusterDeployment) -> AsyncIterator[RedisClusterStore]:
    """A store that waits for so long that a busy machine is not taken for it."""
    store = RedisClusterStore(cluster.url, timeout_s=PATIENT_S)
    for key in KEYS:
        assert await store.create(key, session(0)) is None
    yield store
    await store.close()


async def all_of(store: RedisClusterStore, keys: list[SessionKey]) -> list[object]:
    """What the store holds, once all of it can be read."""
    async with asyncio.timeout(20):
        while True:
            found = list(await store.load(keys))
            if not any(isinstance(record, StoreUnavailable) for record in found):
                return found
            await asyncio.sleep(0.05)


def slot_of(key: SessionKey) -> int:
    return SLOT_OF_TAG[tag_of(key)]


def owner(cluster: ClusterDeployment, key: SessionKey) -> ClusterNode:
    port = next(port for first, last, (_, port, *_), *_ in cluster.slots() if first <= slot_of(key) <= last)
    return next(node for node in cluster.nodes if node.port == port)


def neighbours(key: SessionKey, count: int) -> list[SessionKey]:
    """Sessions with the hash tag of a key."""
    others = (SessionKey("neighbours", str(i)) for i in range(100_000))
    found = [key]
    while len(found) < count:
        if tag_of(other := next(others)) == tag_of(key):
            found.append(other)
    return found


def commits(keys: list[SessionKey], at: int) -> list[Commit]:
    return [Commit(key, session(at)[VERSION_SLICE], session(at + 1)) for key in keys]


def move(cluster: ClusterDeployment, source: ClusterNode, target: ClusterNode, keys: list[SessionKey]) -> None:
    cluster.migrate(source, target, *map(redis_key, keys))


async def test_nobody_notices_that_a_slot_moves(store: RedisClusterStore, cluster: ClusterDeployment) -> None:
    """Half of a tag's keys are at the new node: a call on all of them is refused there and here, and is divided."""
    source = owner(cluster, KEYS[0])
    target = next(node for node in cluster.nodes if node is not source)
    slot = str(slot_of(KEYS[0]))
    here, there, new = (group := neighbours(KEYS[0], 6))[:2], group[2:5], group[5]
    for key in group[1:5]:
        await store.create(key, session(0))
    cluster.command(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.id_of(source))
    cluster.command(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.id_of(target))
    move(cluster, source, target, there)

    assert await store.load([*KEYS[1:], *group[:5]]) == [session(0)] * (len(KEYS) + 4)
    assert await store.commit(commits([*here, *there, *KEYS[1:]], 0)) == [None] * (len(KEYS) + 4)
    assert await store.create(new, session(1)) is None
    assert cluster.command(target, "DBSIZE") >= 4
    assert await store.load(group) == [session(1)] * 6

    move(cluster, source, target, here)
    for node in cluster.nodes:
        cluster.command(node, "CLUSTER", "SETSLOT", slot, "NODE", cluster.id_of(target))
    assert await store.commit(commits(group, 1)) == [None] * 6
    assert await store.load(group) == [session(2)] * 6
    assert await store.delete(new)
    assert not await store.delete(new)


async def test_a_node_that_is_down_takes_only_its_own_sessions_along(
    store: RedisClusterStore, cluster: ClusterDeployment
) -> None:
    victim = owner(cluster, KEYS[0])
    down = [key for key in KEYS if owner(cluster, key) is victim]
    victim.kill()
    for outcomes in (await store.load(KEYS), await store.commit(commits(KEYS, 0))):
        refused = {key for key, outcome in zip(KEYS, outcomes, strict=True) if isinstance(outcome, StoreUnavailable)}
        assert refused == set(down)
    with pytest.raises(StoreUnavailable):
        await store.create(down[0], session(0))
    with pytest.raises(StoreUnavailable):
        await store.delete(down[0])
    assert str(victim.port) in " ".join((await store.health()).warnings)
    await asyncio.to_thread(cluster.restore)
    assert await store.load([down[0]]) == [None], "it serves again, though it kept nothing"


async def test_a_node_that_hangs_leaves_its_sessions_in_doubt_and_no_others(
    store: RedisClusterStore, cluster: ClusterDeployment
) -> None:
    owners = {key: owner(cluster, key) for key in KEYS}
    victim = owners[KEYS[0]]
    victim.signal(signal.SIGSTOP)
    verdicts = await store.commit(commits(KEYS, 0))
    doubtful = {key for key, verdict in zip(KEYS, verdicts, strict=True) if isinstance(verdict, OutcomeUnknown)}
    assert doubtful == {key for key in KEYS if owners[key] is victim}
    assert all(verdict is None for key, verdict in zip(KEYS, verdicts, strict=True) if key not in doubtful)


async def test_a_node_that_hangs_holds_up_one_batch_and_no_other(
    patient: RedisClusterStore, cluster: ClusterDeployment
) -> None:
    victim = owner(cluster, KEYS[0])
    down = {key for key in KEYS if owner(cluster, key) is victim}
    victim.signal(signal.SIGSTOP)
    for batch in range(20):
        begun = time.monotonic()
        verdicts = dict(zip(KEYS, await patient.commit(commits(KEYS, batch)), strict=True))
        took_s = time.monotonic() - begun
        assert {key for key, verdict in verdicts.items() if verdict is not None} == down
        what = OutcomeUnknown if batch == 0 else StoreUnavailable
        assert {type(verdicts[key]) for key in down} == {what}, "in doubt is what was sent, and nothing was any more"
        assert took_s < (1.5 if batch == 0 else 0.5) * PATIENT_S
    victim.signal(signal.SIGCONT)
    there = dict(zip(KEYS, await all_of(patient, KEYS), strict=True))
    assert {there[key] for key in KEYS if key not in down} == {session(20)}
    assert {there[key] for key in down} <= {session(0), session(1)}


async def test_a_node_that_is_down_is_not_asked_after_by_every_batch(
    store: RedisClusterStore, cluster: ClusterDeployment
) -> None:
    def readings() -> int:
        infos = (cluster.command(node, "INFO", "commandstats") for node in cluster.nodes if node.running)
        return sum(
            info.get("cmdstat_cluster|slots", info.get("cmdstat_cluster", {"calls": 0}))["calls"] for info in infos
        )

    owner(cluster, KEYS[0]).kill()
    before = readings()
    begun = time.monotonic()
    batches = 0
    while time.monotonic() - begun < 2:
        await store.load(KEYS)
        batches += 1
    took_s = time.monotonic() - begun
    assert batches > 20
    assert readings() - before <= 2 * (5 + took_s / LONGEST_PAUSE_S), "of two nodes"


async def test_a_slot_that_nobody_serves_is_named(store: RedisClusterStore, cluster: ClusterDeployment) -> None:
    node = owner(cluster, KEYS[0])
    cluster.command(node, "CLUSTER", "DELSLOTS", str(slot_of(KEYS[0])))
    (refused,) = await store.load([KEYS[0]])
    assert isinstance(refused, StoreUnavailable)
    assert "CLUSTERDOWN" in refused.detail or "serves the session's slot" in refused.detail
    cluster.command(node, "CLUSTER", "ADDSLOTS", str(slot_of(KEYS[0])))
    assert await all_of(store, [KEYS[0]]) == [session(0)]


async def test_scripts_are_sent_again_to_a_node_that_forgot_them(
    store: RedisClusterStore, cluster: ClusterDeployment
) -> None:
    assert await store.commit(commits(KEYS, 0)) == [None] * len(KEYS)
    for node in cluster.nodes:
        cluster.command(node, "SCRIPT", "FLUSH")
    assert await store.commit(commits(KEYS, 1)) == [None] * len(KEYS)


async def test_it_is_found_as_long_as_one_of_its_addresses_answers(cluster: ClusterDeployment) -> None:
    one = cluster.nodes[1].port
    store = RedisClusterStore(f"redis+cluster://127.0.0.1:1,127.0.0.1:{one}", timeout_s=2.0)
    assert "3 masters" in (await store.health()).description
    await store.close()


async def test_every_node_gets_the_credentials(cluster: ClusterDeployment) -> None:
    for node in cluster.nodes:
        cluster.command(node, "ACL", "SETUSER", "ann", "on", ">p@ss", "~conveyor:*", "+@all")
    one = cluster.nodes[0].port
    store = RedisClusterStore(f"redis+cluster://ann:p%40ss@127.0.0.1:{one}", timeout_s=2.0)
    for key in KEYS:
        assert await store.create(key, session(0)) is None
    assert "p%40ss" not in (await store.health()).description
    await store.close()
    stranger = RedisClusterStore(f"redis+cluster://ann:guess@127.0.0.1:{one}", timeout_s=2.0)
    with pytest.raises(StoreUnavailable, match="refused the service's credentials"):
        await stranger.health()
    await stranger.close()


async def test_a_batch_of_many_tags_is_one_piece_for_each_node(
    store: RedisClusterStore, cluster: ClusterDeployment
) -> None:
    def calls() -> list[int]:
        infos = (cluster.command(node, "INFO", "commandstats") for node in cluster.nodes)
        return [info["cmdstat_evalsha"]["calls"] for info in infos]

    await store.commit(commits(KEYS, 0))
    before = calls()
    await asyncio.gather(*(store.commit(commits([key], 1)) for key in KEYS[:20]), store.commit(commits(KEYS[20:], 1)))
    made = sum(calls()) - sum(before)
    assert made == 20 + len({tag_of(key) for key in KEYS[20:]}), "one call for each tag, and none twice"


async def test_a_server_that_is_no_cluster_says_so() -> None:
    with RedisServer() as server:
        store = RedisClusterStore(f"redis+cluster://127.0.0.1:{server.port}", timeout_s=2.0)
        with pytest.raises(StoreUnavailable, match="cluster support disabled"):
            await store.health()
        await store.close()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis+cluster://localhost:7000/3", "a cluster has no databases"),
        ("redis+cluster://localhost:port", "'localhost:port' is no host:port"),
        ("redis+cluster://localhost:7000,", "a host is missing"),
        ("redis+cluster://", "a host is missing"),
        ("redis+sentinel://localhost:26379", "/service-name"),
        ("redis+sentinel://localhost:26379/sessions/first", "/service-name"),
        ("redis+sentinel://:26379/sessions", "a host is missing"),
    ],
)
async def test_what_is_wrong_with_a_url_is_said(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        open_redis(url, timeout_s=1.0, description=None, durability="none")


async def test_a_write_that_may_have_been_made_stays_in_doubt_where_its_slot_moves_meanwhile() -> None:
    """The first reply is lost, then some of the keys have moved; by the time of a third attempt others have written."""
    scripts = 0

    async def node(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal scripts
        with closing(writer):
            while asked := await reader.read(100_000):
                if b"SLOTS" in asked:
                    writer.write(b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$0\r\n\r\n:%d\r\n" % port)
                elif b"EVAL" not in asked:
                    writer.write(b"+PONG\r\n")
                else:
                    scripts += 1
                    if scripts == 1:
                        return
                    later = session(5)
                    reply = b"*1\r\n$%d\r\n%b\r\n" % (len(later), later)
                    writer.write(b"-TRYAGAIN\r\n" if scripts == 2 else reply * asked.count(b"EVAL"))

    listener = await asyncio.start_server(node, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    store = RedisClusterStore(f"redis+cluster://127.0.0.1:{port}", timeout_s=1.0)
    made = await store.commit(commits(neighbours(KEYS[0], 2), 1))
    assert [type(outcome) for outcome in made] == [OutcomeUnknown] * 2
    await store.close()
    listener.close()
