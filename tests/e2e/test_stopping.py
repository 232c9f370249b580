"""The end of a process, in order or not: what was answered is kept, and the next process goes on."""

import signal
import threading
import time

import httpx
import pytest

from tests.api.wire import readings, step, step_count, stream, stream_at
from tests.process import members_of, redis_servers_in
from tests.servers import ConveyorCommand, ConveyorServer, RedisServer, wait_until

ROWS = readings(12)


def test_a_service_that_is_told_to_stop_answers_what_is_in_flight() -> None:
    with (
        RedisServer() as redis,
        ConveyorCommand(redis_url=redis.url) as service,
        httpx.Client(base_url=service.url, timeout=10) as client,
        stream_at(service, "/v1/sessions/a/stream?model=hotspot") as one,
        stream_at(service, "/v1/stream") as many,
    ):
        client.put("/v1/sessions/b", json={"model": "hotspot"})
        one.receive()
        redis.signal(signal.SIGSTOP)  # so that the steps stay in flight
        one.send(*({"x": row} for row in ROWS[:5]))
        many.send({"session_id": "b", "x": ROWS[0]})
        time.sleep(0.3)
        service.terminate()
        stopped_at = time.monotonic()
        waking = threading.Timer(0.7, redis.signal, [signal.SIGCONT])
        waking.start()
        readiness = client.get("/readyz")
        answers = [one.receive()["step"] for _ in range(5)], many.receive()["step"]
        closings = [one.closed().code, many.closed().code]
        status = service.wait(10)
        waking.join()
        assert time.monotonic() - stopped_at < 10
    assert (readiness.status_code, readiness.json()["ready"]) == (503, False)
    assert "told to stop" in " ".join(readiness.json()["warnings"])
    assert (answers, closings) == (([1, 2, 3, 4, 5], 1), [1012, 1012])
    assert status in (0, -signal.SIGTERM)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_service_goes_on_while_its_balancer_learns_that_it_is_to_stop(redis: RedisServer, workers: str) -> None:
    with (
        ConveyorCommand("--workers", workers, redis_url=redis.url, drain_delay_s=2) as service,
        stream_at(service, "/v1/sessions/delayed/stream?model=hotspot") as socket,
    ):
        socket.receive()
        service.terminate()
        stopped_at = time.monotonic()
        assert wait_until(lambda: httpx.get(f"{service.url}/readyz").status_code == 503, 1)
        while time.monotonic() < stopped_at + 1:
            assert socket.ask({"x": ROWS[0]})["step"] > 0
            with httpx.Client(base_url=service.url) as client, stream_at(service, "/v1/stream") as new:
                at = step(client, "delayed", ROWS[0])["step"]
                new.send({"session_id": "delayed", "x": ROWS[0]})
                assert new.receive()["step"] == at + 1
        assert socket.closed().code == 1012
        service.wait(5)
        assert time.monotonic() > stopped_at + 2
        assert "Traceback" not in service.output()


def test_told_twice_it_does_not_wait_for_its_balancer(redis: RedisServer) -> None:
    with ConveyorCommand(redis_url=redis.url, drain_delay_s=60) as service:
        service.terminate()
        assert wait_until(lambda: httpx.get(f"{service.url}/readyz").status_code == 503, 1)
        service.terminate()
        service.wait(5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_service_stops_at_once(redis: RedisServer, number: signal.Signals) -> None:
    with ConveyorCommand(redis_url=redis.url) as service, stream_at(service, "/v1/stream") as socket:
        service.signal(number)
        assert socket.closed().code == 1012
        assert service.wait(3) in (0, -number, 128 + number)
        assert "Traceback" not in service.output()


@pytest.mark.parametrize("end", [ConveyorServer.stop, ConveyorServer.kill], ids=["SIGTERM", "SIGKILL"])
def test_with_its_own_redis_a_service_goes_on_where_it_was(end: object) -> None:
    with ConveyorCommand() as service, httpx.Client(base_url=service.url) as client:
        client.put("/v1/sessions/pump-7", json={"model": "hotspot"})
        client.put("/v1/sessions/undisturbed", json={"model": "hotspot"})
        for number, row in enumerate(ROWS, start=1):
            if number in (5, 9):
                end(service)
                service.start()
            answer = step(client, "pump-7", row, step=number)
            assert answer["step"] == number
        assert answer["outputs"] == step(client, "undisturbed", ROWS)["outputs"]
        data = service.folder / "data"
        assert len(redis_servers_in(data)) == 1
        end(service)
        assert wait_until(lambda: redis_servers_in(data) == [], 10), "a redis-server was left behind"


def test_a_socket_resumes_after_the_death_of_its_service(redis: RedisServer, session_id: str) -> None:
    with ConveyorCommand(redis_url=redis.url) as service:
        with stream(service, session_id, "?model=hotspot") as socket:
            socket.receive()
            acknowledged = [socket.ask({"x": row})["step"] for row in ROWS[:4]]
            service.kill()
        service.start()
        with stream(service, session_id) as socket:
            assert socket.receive()["step"] == acknowledged[-1]
            assert socket.ask({"x": ROWS[4], "step": 5})["step"] == 5


def test_workers_share_a_port_and_their_sessions_and_end_together() -> None:
    with ConveyorCommand("--workers", "2") as service:
        httpx.put(f"{service.url}/v1/sessions/pump-7", json={"model": "hotspot"}).raise_for_status()
        for number in range(1, 31):
            with httpx.Client(base_url=service.url) as client:  # a connection of its own, to whichever worker takes it
                assert step(client, "pump-7", ROWS[0], step=number)["step"] == number
                assert step_count(client, "pump-7") == number
        data = service.folder / "data"
        assert len(redis_servers_in(data)) == 1
        service.terminate()
        service.wait(10)
        assert wait_until(lambda: members_of(service.pid) == [], 2), "workers were left behind"
        assert redis_servers_in(data) == []
        assert "Traceback" not in service.output()
