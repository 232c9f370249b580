"""Several workers on one port: each may die, hang or be replaced, and no session notices more than a reconnect."""

import asyncio
import fcntl
import os
import signal
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.api.test_health import metrics
from tests.api.wire import readings, step, step_count, stream
from tests.process import members_of, processes, redis_servers_in
from tests.servers import REPOSITORY, ConveyorCommand, ConveyorServer, RedisServer, wait_until
from tests.streaming_client import Answer, open_session, reading, stream_over_rest, stream_over_websocket

ROWS = readings(12)
STEPS = 300
SESSIONS = 6
ONE_REQUEST = {"connection": "close"}
"""A server may close an idle connection at any time; a request on a new one is answered."""


def workers_of(service: ConveyorServer) -> set[int]:
    """The processes of its workers; one that has ended is none."""
    return set(
        processes(
            lambda number: (
                os.getpgid(number) == service.pid and b"spawn_main" in Path(f"/proc/{number}/cmdline").read_bytes()
            )
        )
    )


def models_ready(service: ConveyorServer) -> int:
    """How often a worker has loaded its model so far: as many workers have come to serve, or nearly."""
    return service.output().count("model ready")


@contextmanager
def workers(count: int, **settings: object) -> Iterator[ConveyorServer]:
    """A service of so many workers, all of which serve; its temporary files are in a folder of its own."""
    service = ConveyorCommand("--workers", str(count), model_trial_s=0, **settings)
    temporary = service.folder / "tmp"
    temporary.mkdir()
    service.env["TMPDIR"] = str(temporary)
    with service:
        assert wait_until(lambda: "Conveyor listens on" in service.output(), 20), service.output()
        assert models_ready(service) == len(workers_of(service)) == count, "it is said when all serve"
        assert f"workers   {count}\n" in service.output()
        yield service


def is_gone(service: ConveyorServer) -> bool:
    """Whether all its processes end within a moment of their parent."""
    return wait_until(lambda: members_of(service.pid) == [], 3)


def shared_files(service: ConveyorServer) -> list[Path]:
    """What its workers share, in the system's temporary folder."""
    return sorted((service.folder / "tmp").glob("conveyor-*/*"))


async def undisturbed(service: ConveyorServer, number: int, rows: list[list[float]]) -> list[Answer]:
    session_id = str(uuid.uuid4())
    await open_session(service.url, session_id)
    return await stream_over_rest([service.url], session_id, rows)


async def test_a_killed_worker_costs_its_sessions_a_reconnect() -> None:
    """The private Redis outlives the workers that are killed, and every answer is that of the undisturbed run."""
    rows = [[reading(number, at) for at in range(STEPS)] for number in range(SESSIONS)]
    with workers(2) as service:
        redis = redis_servers_in(service.folder / "data")
        expected = await asyncio.gather(*(undisturbed(service, i, rows[i]) for i in range(SESSIONS)))
        for i in range(SESSIONS):
            await open_session(service.url, f"s{i}")
        clients = [
            asyncio.create_task(stream_over_rest([service.url], f"s{i}", rows[i]))
            if i % 2
            else asyncio.create_task(stream_over_websocket(service.ws_url, f"s{i}", rows[i]))
            for i in range(SESSIONS)
        ]
        for kills, victim in enumerate(sorted(workers_of(service))):
            await asyncio.sleep(0.2)
            assert not all(client.done() for client in clients), f"the clients were done after {kills} kills"
            psutil.Process(victim).kill()
        async with asyncio.timeout(60):
            answers = await asyncio.gather(*clients)
        for i in range(SESSIONS):
            received = {answer["step"]: answer["outputs"] for answer in answers[i]}
            truth = {answer["step"]: answer["outputs"] for answer in expected[i]}
            assert received.items() <= truth.items(), "every answer is that of the undisturbed run, to the bit"
            assert STEPS in received
            if i % 2:
                assert len(received) == STEPS, "with one step in flight, every step is answered"
            with httpx.Client(base_url=service.url) as client:
                assert step_count(client, f"s{i}") == STEPS
        assert wait_until(lambda: len(workers_of(service)) == 2, 10), "each is replaced"
        assert redis_servers_in(service.folder / "data") == redis


def test_the_port_is_closed_with_its_last_worker_and_not_with_their_supervisor(redis: RedisServer) -> None:
    with workers(2, redis_url=redis.url) as service, ExitStack() as clients:
        for _ in range(8):  # who keeps a connection is waited for, see service.server
            clients.enter_context(socket.create_connection(("127.0.0.1", service.port)))
        service.terminate()
        assert wait_until(lambda: not accepts(service), 5)
        time.sleep(0.1)
        assert workers_of(service), "the port was closed because all had ended"
        service.wait(10)


def accepts(service: ConveyorServer) -> bool:
    try:
        socket.create_connection(("127.0.0.1", service.port)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_metrics_are_those_of_all_workers_the_dead_included(redis: RedisServer, session_id: str) -> None:
    def take_steps(numbers: range) -> None:
        for number in numbers:
            with httpx.Client(base_url=service.url) as client:  # a connection of its own, to whichever worker takes it
                step(client, session_id, ROWS[0], step=number)
                counted = metrics(client)
                assert counted['conveyor_timesteps_total{model="hotspot",version="1"}'] == number
                assert counted['conveyor_stage_seconds_count{stage="commit"}'] >= number
                assert counted['conveyor_stage_seconds_bucket{le="+Inf",stage="commit"}'] >= number

    with workers(3, redis_url=redis.url) as service:
        httpx.put(f"{service.url}/v1/sessions/{session_id}", json={"model": "hotspot"}).raise_for_status()
        take_steps(range(1, 11))
        files = shared_files(service)
        folder = os.open(files[0].parent, os.O_RDONLY)
        with pytest.raises(BlockingIOError):  # the lock that keeps cleaners of old files away
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(folder)
        before = workers_of(service)
        for victim in before:
            psutil.Process(victim).kill()
        assert wait_until(lambda: models_ready(service) == 6, 20)
        assert len(workers_of(service)) == 3
        take_steps(range(11, 21))
        assert shared_files(service) == files, "a worker that is replaced leaves nothing behind"
        service.terminate()
        service.wait()
        assert shared_files(service) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_all_workers_answer_what_they_have_and_nothing_is_left(number: signal.Signals) -> None:
    with workers(2) as service, ExitStack() as stack:
        data = service.folder / "data"
        sockets = [stack.enter_context(stream(service, f"s{i}", "?model=hotspot")) for i in range(8)]
        for socket in sockets:
            assert socket.receive()["step"] == 0
        (redis,) = map(psutil.Process, redis_servers_in(data))
        redis.suspend()  # so that the steps stay in flight
        for socket in sockets:
            socket.send(*({"x": row} for row in ROWS[:3]))
        service.signal(number)
        assert not wait_until(lambda: not service.running, 1)
        redis.resume()
        for socket in sockets:
            assert [socket.receive()["step"] for _ in range(3)] == [1, 2, 3]
            assert socket.closed().code == 1012
        assert service.wait(10) == 0
        assert is_gone(service)
        assert redis_servers_in(data) == []
        assert shared_files(service) == []
        assert "Traceback" not in service.output()


def test_told_twice_it_ends_at_once() -> None:
    with RedisServer() as redis, workers(2, redis_url=redis.url, store_timeout_s=6) as service:
        with stream(service, "a", "?model=hotspot") as socket:
            socket.receive()
            redis.signal(signal.SIGSTOP)
            socket.send({"x": ROWS[0]})
            service.terminate()
            assert not wait_until(lambda: not service.running, 1.5)
            service.terminate()
            assert service.wait(4) == 0
        redis.signal(signal.SIGCONT)
        assert is_gone(service)


def test_the_death_of_the_parent_leaves_nothing_and_the_next_start_goes_on() -> None:
    with workers(2) as service, stream(service, "pump-7", "?model=hotspot") as socket:
        socket.receive()
        assert socket.ask({"x": ROWS[0]})["step"] == 1
        service.kill()
        assert socket.closed().code == 1012
        assert is_gone(service)
        assert wait_until(lambda: redis_servers_in(service.folder / "data") == [], 3), "a redis-server was left behind"
        assert shared_files(service) == []
        assert "Traceback" not in service.output()
        service.start()
        with httpx.Client(base_url=service.url) as client:
            assert step(client, "pump-7", ROWS[1], step=2)["step"] == 2


async def test_a_hangup_replaces_the_workers_one_by_one_without_a_gap(redis: RedisServer) -> None:
    with workers(2, redis_url=redis.url) as service:
        before = workers_of(service)

        async def client(session_id: str) -> int:
            await open_session(service.url, session_id)
            taken = 0
            async with httpx.AsyncClient(base_url=service.url, timeout=5) as http:
                while len(now := workers_of(service)) > 2 or now & before:
                    taken += 1
                    answer = await http.post(
                        f"/v1/sessions/{session_id}/steps", json={"x": ROWS[0], "step": taken}, headers=ONE_REQUEST
                    )
                    assert (answer.status_code, answer.json()["step"]) == (200, taken)
            return taken

        service.signal(signal.SIGHUP)
        async with asyncio.timeout(40):
            taken = await asyncio.gather(*(client(str(uuid.uuid4())) for _ in range(4)))
        assert min(taken) > 20
        assert service.running


def test_a_new_worker_that_cannot_serve_leaves_the_old_ones_in_place(redis: RedisServer, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.symlink_to(REPOSITORY / "models")
    with workers(2, redis_url=redis.url, models=models) as service:
        before = workers_of(service)
        models.unlink()
        service.signal(signal.SIGHUP)
        assert wait_until(lambda: "the old one stays" in service.output(), 10)
        assert service.output().count("no model can be served") == 1
        assert workers_of(service) == before
        assert service.is_ready()


def test_a_worker_that_cannot_be_replaced_yet_is_replaced_later(redis: RedisServer, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.symlink_to(REPOSITORY / "models")
    with workers(2, redis_url=redis.url, models=models) as service:
        before = workers_of(service)
        models.unlink()
        psutil.Process(min(before)).kill()
        assert wait_until(lambda: "no model can be served" in service.output(), 10)
        assert service.is_ready(), "the other worker serves on"
        models.symlink_to(REPOSITORY / "models")
        assert wait_until(lambda: models_ready(service) == 3, 15), "it is tried again"
        assert len(workers_of(service)) == 2
        assert max(before) in workers_of(service)


def test_a_worker_that_hangs_is_killed_and_replaced(redis: RedisServer) -> None:
    with workers(2, redis_url=redis.url, worker_timeout_s=5) as service:
        before = workers_of(service)
        hanging = min(before)
        psutil.Process(hanging).suspend()
        assert wait_until(lambda: models_ready(service) == 3, 20)
        assert "a worker hangs and is killed" in service.output()
        assert workers_of(service) & before == before - {hanging}


def test_a_worker_that_hangs_does_not_keep_the_service_from_ending(redis: RedisServer) -> None:
    with workers(2, redis_url=redis.url, drain_timeout_s=1) as service:
        psutil.Process(min(workers_of(service))).suspend()
        service.terminate()
        assert service.wait(8) == 0
        assert is_gone(service)


@pytest.mark.parametrize(
    ("end", "status"),
    [(lambda service, first: first.kill(), 3), (lambda service, first: service.terminate(), 0)],
    ids=["it is killed", "the service is told to stop"],
)
def test_while_the_first_worker_starts(end: object, status: int) -> None:
    with ConveyorCommand("--workers", "2", model_trial_s=0) as service:
        service.stop()
        service.start(wait=False)
        assert wait_until(lambda: bool(workers_of(service)), 10)
        (first,) = workers_of(service)
        end(service, psutil.Process(first))  # type: ignore[operator]
        assert service.wait(5) == status
        assert service.output().count("the first worker ended before it could serve") == (1 if status else 0)
        assert "Traceback" not in service.output()
        assert is_gone(service)
        assert redis_servers_in(service.folder / "data") == []
