"""The probes find what they look for, on real servers, with less of everything."""

import time

import pytest

pytest.importorskip("picows", reason="needs the bench extra")
pytest.importorskip("psutil", reason="needs the bench extra")

import msgspec

from bench import population
from bench.effort import QUICK
from bench.goals import READY_S, REDIS_BYTES
from bench.load import Sample, cpu_seconds, family
from bench.measure import Measurement, measure_alone
from bench.probes import memory, sockets, startup, workers
from bench.probes import population as crowd
from bench.probes.population import FEW, PREFIX, scenario, sweep
from bench.reference import rows
from bench.resp import Link, pack
from bench.scenarios import BATCHES, ENGINE, PARTS, REDIS
from bench.servers import conveyor, redis_server, running, temporary
from bench.summary import Reading
from bench.traffic import CYCLE, share

SMALL = msgspec.structs.replace(QUICK, rounds=1, sockets=200)


def test_the_parts_alone_are_measured_at_each_batch_size() -> None:
    with running(()) as servers:
        for part in PARTS:
            found = measure_alone(part, servers, warm_up_s=0.01, seconds=0.05, batches=(1, 8))
            assert [cell.scenario for cell in found] == ["alone-1", "alone-8"]
            assert all(cell.steps_per_s > 0 and 0 < cell.p50_ms <= cell.p999_ms for cell in found)
    assert PARTS[ENGINE] == PARTS[REDIS] == BATCHES


def test_a_start_takes_time_until_ready() -> None:
    found = list(startup.probe(SMALL))
    assert [number for number, _ in found] == [1] * len(found)
    assert found[0][1].goal == READY_S
    assert all(0.1 < reading.value < 60 for _, reading in found)


def test_redis_holds_little_more_for_a_session_than_its_tensors() -> None:
    beyond, tensors, record = (reading for _, reading in memory.probe(SMALL))
    assert tensors.value == 4 * (2 * 2 * 64 + 24 * 3)
    assert record.value < tensors.value + beyond.value
    assert beyond.value <= REDIS_BYTES.bar


def test_sockets_stay_open_and_take_memory() -> None:
    idle, stepped = (reading for _, reading in sockets.probe(SMALL))
    assert "200 open" in idle.title
    assert 0 < idle.value <= stepped.value


def test_more_sockets_than_the_system_allows_are_not_measured() -> None:
    with pytest.raises(RuntimeError, match="open files are needed"):
        next(sockets.probe(msgspec.structs.replace(SMALL, sockets=2**40)))


def test_sessions_set_in_bulk_are_the_services_own() -> None:
    """They are stepped through the service, and the answers go on from the states that were set."""
    found = [found for _, found in sweep((2 * FEW, FEW), rounds=2, warm_up_s=0.1, seconds=0.2)]
    assert [each.scenario for each in found] == ["sessions-2000", "sessions-1000", "sessions-1000", "sessions-2000"]
    assert all(each.verified > 0 for each in found)


def test_many_sessions_are_measured_read_first_and_remembered() -> None:
    small = msgspec.structs.replace(SMALL, population=2 * FEW)
    found = [found for _, found in crowd.probe(small)]
    measured = [each for each in found if isinstance(each, Measurement)]
    names = ["sessions-2000-read", "sessions-1000-read", "sessions-2000", "sessions-1000"]
    assert [each.scenario for each in measured] == names
    assert all(each.verified > 0 for each in measured)
    held, rate, _, grown = (each for each in found if isinstance(each, Reading))
    assert 0 < held.value < 2000
    assert rate.value > 0
    assert grown.value > population.tensor_bytes()


def test_workers_are_measured_when_all_of_them_serve() -> None:
    found = [found for _, found in workers.probe(SMALL)]
    assert [each.scenario for each in found] == ["workers-1", "workers-2"]
    assert all(each.verified > 0 for each in found)
    with temporary() as folder, redis_server(folder) as redis, conveyor(redis, folder, set(), workers=2) as server:
        group = {"service": family(server.pid)}
        before = cpu_seconds(group)["service"]
        time.sleep(2)  # one that had still to start would take this long
        assert {each.pid for each in family(server.pid)} == {each.pid for each in group["service"]}
        assert cpu_seconds(group)["service"] - before < 0.5


def test_a_session_that_is_not_there_is_told() -> None:
    with temporary() as folder, redis_server(folder) as redis, conveyor(redis, folder, set()) as server:
        with pytest.raises(RuntimeError, match="session_not_found"):
            population.go_through(server, PREFIX, 3)


def test_an_answer_that_does_not_follow_from_its_step_is_a_failure() -> None:
    wrong = b'{"step":%d,"outputs":{"hot_spot":%s}}' % (population.SEEDED_STEPS + 1, str([[6.0] * 3] * 24).encode())
    with pytest.raises(RuntimeError, match=r"step 1 of live-\d+ got a wrong forecast"):
        population.verify(scenario(FEW), PREFIX, rows(), [Sample(0, 0, wrong)])


def test_connections_divide_a_population() -> None:
    every = [session for connection in range(64) for session in share(scenario(FEW), connection)]
    assert sorted(every) == list(range(FEW))
    many = [session for connection in range(64) for session in share(scenario(1_000_000), connection)]
    assert len(set(many)) == len(many) == 64 * CYCLE
    again = msgspec.structs.replace(scenario(1_000_000), seed=1)
    assert len({*share(again, 0)} & {*many}) < len(many) / 2


def test_another_reply_than_the_expected_one_is_told() -> None:
    with temporary() as folder, redis_server(folder) as redis:
        link = Link(redis.socket)
        link.send(pack(b"SET", b"a", b"1") + pack(b"INCR", b"a") + pack(b"NONSENSE"))
        link.expect(b"+OK\r\n:2\r\n")
        with pytest.raises(RuntimeError, match="unknown command"):
            link.expect(b"+OK\r\n")
        link.close()
