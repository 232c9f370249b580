"""A master of a Redis Cluster is killed: its sessions go on from what its replica had, and no other notices."""

import asyncio
import signal
import time
import uuid
from collections.abc import Iterator
from functools import partial

import httpx
import pytest

from service.adapters.redis_records import tag_of
from service.adapters.redis_slots import SLOT_OF_TAG
from service.core.access import ANYBODY
from service.core.session import SessionKey
from tests.chaos.checker import Terms
from tests.chaos.siege import besiege
from tests.e2e.command import conveyor
from tests.faults.failover import replay, settled, undisturbed, until
from tests.redis_clusters import ClusterDeployment, ClusterNode, cluster_deployment
from tests.redis_deployments import cut_off, is_level
from tests.servers import ConveyorServer
from tests.streaming_client import open_session, reading

ROWS = [reading(5, step) for step in range(12)]


@pytest.fixture(scope="module")
def deployment() -> Iterator[ClusterDeployment]:
    with cluster_deployment() as deployment:
        yield deployment


@pytest.fixture
def cluster(deployment: ClusterDeployment) -> ClusterDeployment:
    """A cluster that is whole, whatever the test before has done to it."""
    deployment.restore()
    return deployment


def sessions_of(cluster: ClusterDeployment, master: ClusterNode, count: int) -> list[str]:
    """Ids of sessions that a master serves."""
    slots = {
        slot
        for first, last, (_, port, *_), *_ in cluster.slots()
        if port == master.port
        for slot in range(first, last + 1)
    }
    ids = (str(uuid.uuid4()) for _ in range(10_000))
    return [id_ for id_ in ids if SLOT_OF_TAG[tag_of(SessionKey(ANYBODY.tenant, id_))] in slots][:count]


async def fail_over(cluster: ClusterDeployment, victim: ClusterNode, replica: ClusterNode) -> None:
    """Kill a master; return when its replica, which may have been cut off, has taken its place."""
    await asyncio.to_thread(victim.kill)
    replica.signal(signal.SIGCONT)
    await until(lambda: cluster.is_master(replica), "the replica takes over")


async def kill_cut_off(cluster: ClusterDeployment, victim: ClusterNode) -> None:
    """Kill a master whose replica has had nothing from it for a while, and start it again."""
    replica = cluster.replica_of(victim)
    await asyncio.sleep(1)
    cut_off(victim, replica)
    await asyncio.sleep(0.5)
    await fail_over(cluster, victim, replica)
    await asyncio.to_thread(victim.start)
    await until(cluster.is_well, "the cluster is well again")


async def test_no_session_is_harmed_by_a_master_that_is_killed_under_load(cluster: ClusterDeployment) -> None:
    """The replica is held up before: what it does not get is lost, although clients were told of it."""
    with ConveyorServer(redis_url=cluster.url, store_timeout_s=1) as service:
        report = await besiege(service.url, partial(kill_cut_off, cluster, cluster.masters()[0]), Terms(forgets=True))
    assert report.violations == []
    assert report.rewinds > 0, "steps were lost that clients had been told of"


async def test_with_durability_replica_a_failover_loses_nothing(cluster: ClusterDeployment) -> None:
    with ConveyorServer(redis_url=cluster.url, store_timeout_s=1, durability="replica") as service:
        report = await besiege(service.url, partial(kill_cut_off, cluster, cluster.masters()[1]), Terms())
    assert report.violations == []
    assert report.rewinds == 0


async def test_a_step_behind_what_was_lost_is_a_gap_and_never_goes_on_from_memory(cluster: ClusterDeployment) -> None:
    victim = cluster.masters()[0]
    replica = cluster.replica_of(victim)
    lost, kept = (sessions_of(cluster, master, 1)[0] for master in cluster.masters()[:2])
    with ConveyorServer(redis_url=cluster.url, store_timeout_s=1) as service:
        async with httpx.AsyncClient(base_url=service.url, timeout=30) as http:
            whole = await undisturbed(service, str(uuid.uuid4()), ROWS)
            for session_id in (lost, kept):
                await open_session(service.url, session_id)
                await replay(http, session_id, ROWS[:5], 1)
            await until(lambda: is_level(victim), "the replica has steps 1 to 5")
            cut_off(victim, replica)
            for session_id in (lost, kept):
                await replay(http, session_id, ROWS[:9], 6)
            await fail_over(cluster, victim, replica)
            gap = await settled(http, lost, ROWS, 10)
            assert (gap.status_code, gap.json()["code"], gap.json()["current_step"]) == (409, "step_gap", 5)
            again = await replay(http, lost, ROWS, 6)
            assert [answer["outputs"] for answer in again] == whole[5:]
            assert not any(answer["replayed"] for answer in again)
            rest = await replay(http, kept, ROWS, 10)
            assert [answer["outputs"] for answer in rest] == whole[9:]


async def test_what_others_wrote_since_is_not_overwritten_from_memory(cluster: ClusterDeployment) -> None:
    """Two processes; one remembers steps that are lost, and the other one has had other readings in their place."""
    victim = cluster.masters()[0]
    replica = cluster.replica_of(victim)
    (session_id,) = sessions_of(cluster, victim, 1)
    others = [*ROWS[:5], *(reading(8, step) for step in range(5))]
    with (
        ConveyorServer(redis_url=cluster.url, store_timeout_s=1) as one,
        ConveyorServer(redis_url=cluster.url, store_timeout_s=1) as other,
    ):
        whole = await undisturbed(one, str(uuid.uuid4()), [*others[:9], ROWS[9]])
        async with httpx.AsyncClient(base_url=one.url, timeout=30) as http:
            await open_session(one.url, session_id)
            await replay(http, session_id, ROWS[:5], 1)
            await until(lambda: is_level(victim), "the replica has steps 1 to 5")
            cut_off(victim, replica)
            await replay(http, session_id, ROWS[:9], 6)
            await fail_over(cluster, victim, replica)
            async with httpx.AsyncClient(base_url=other.url, timeout=30) as elsewhere:
                await replay(elsewhere, session_id, others[:9], 6)
            answer = (await settled(http, session_id, ROWS, 10)).json()
            assert (answer["step"], answer["outputs"]) == (10, whole[9])


async def test_sessions_are_listed_shown_and_deleted_from_the_command_line(cluster: ClusterDeployment) -> None:
    ids = sorted(id_ for master in cluster.masters() for id_ in sessions_of(cluster, master, 2))
    settings = {"redis_url": cluster.url}
    with ConveyorServer(**settings) as service:
        for session_id in ids:
            await open_session(service.url, session_id)

    def listed() -> list[str]:
        return sorted(line.split("\t")[0] for line in conveyor("sessions", "list", **settings).stdout.splitlines())

    assert listed() == ids
    assert f'"{ids[0]}"' in conveyor("sessions", "show", ids[0], **settings).stdout
    assert conveyor("sessions", "delete", ids[0], **settings).returncode == 0
    assert listed() == ids[1:]


async def test_sessions_of_other_masters_go_on_while_one_is_down(cluster: ClusterDeployment) -> None:
    """Without its replica a master that is killed is missed; only its own sessions are refused, in the same calls."""
    victim = cluster.masters()[0]
    replica = cluster.replica_of(victim)
    down, up = (sessions_of(cluster, master, 20) for master in cluster.masters()[:2])
    with ConveyorServer(redis_url=cluster.url, store_timeout_s=1) as service:
        async with httpx.AsyncClient(base_url=service.url, timeout=30) as http:
            for session_id in (*down, *up):
                await open_session(service.url, session_id)
            await asyncio.to_thread(replica.kill)
            await asyncio.to_thread(victim.kill)
            steps = [
                {"session_id": id_, "x": ROWS[0], "step": 1} for pair in zip(down, up, strict=True) for id_ in pair
            ]
            results = {
                r["session_id"]: r for r in (await http.post("/v1/steps", json={"steps": steps})).json()["results"]
            }
            assert {results[id_].get("step") for id_ in up} == {1}
            refused = {results[id_]["error"]["code"] for id_ in down}
            assert refused <= {"store_unavailable", "outcome_unknown"}
            ready = await http.get("/readyz")
            assert ready.status_code == 200
            assert str(victim.port) in " ".join(ready.json()["warnings"])


async def test_sessions_of_other_masters_are_answered_soon_while_one_hangs(cluster: ClusterDeployment) -> None:
    """Steps of all masters come in the same calls; what the hanging one serves is waited for in the first alone."""
    victim = cluster.masters()[0]
    replica = cluster.replica_of(victim)
    hanging, others = (sessions_of(cluster, master, 20) for master in cluster.masters()[:2])
    timeout_s = 2.0
    with ConveyorServer(redis_url=cluster.url, store_timeout_s=timeout_s) as service:
        async with httpx.AsyncClient(base_url=service.url, timeout=30) as http:
            for session_id in (*hanging, *others):
                await open_session(service.url, session_id)
            await asyncio.to_thread(replica.kill)  # so that the slots stay with the master
            victim.signal(signal.SIGSTOP)
            codes: list[set[str]] = []
            for step in range(1, 13):
                steps = [{"session_id": id_, "x": ROWS[step - 1], "step": step} for id_ in others]
                steps += [{"session_id": id_, "x": ROWS[0], "step": 1} for id_ in hanging]
                begun = time.monotonic()
                results = (await http.post("/v1/steps", json={"steps": steps})).json()["results"]
                took_s = time.monotonic() - begun
                assert [result.get("step") for result in results[:20]] == [step] * 20
                codes.append({result["error"]["code"] for result in results[20:]})
                assert took_s < (2 * timeout_s if step == 1 else timeout_s)
            assert codes[0] <= {"store_unavailable", "outcome_unknown"}
            assert codes[1:] == [{"store_unavailable"}] * 11
            victim.signal(signal.SIGCONT)
            for session_id in hanging[:3]:
                assert (await settled(http, session_id, ROWS, 1)).json()["step"] == 1
