"""The end of a process whose Redis is slow, or does not answer at all, or whose clients do not read."""

import json
import signal
import socket
import threading
import time

import httpx
import redis as redis_client
from websockets.sync.client import connect

from tests.api.wire import readings, require_problem, stream_at
from tests.servers import ConveyorServer, RedisServer

ROWS = readings(6)


def post(service: ConveyorServer, answers: list[httpx.Response], **message: object) -> threading.Thread:
    """Send a step from a thread of its own; its answer goes into `answers`."""

    def send() -> None:
        answers.append(httpx.post(f"{service.url}/v1/sessions/a/steps", json=message, timeout=20))

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def open_session(service: ConveyorServer, session_id: str) -> None:
    httpx.put(f"{service.url}/v1/sessions/{session_id}", json={"model": "hotspot"}).raise_for_status()


def test_a_posted_step_is_answered_though_redis_takes_its_time() -> None:
    with (
        RedisServer() as redis,
        ConveyorServer(redis_url=redis.url, store_timeout_s=4) as service,
        redis_client.Redis.from_url(redis.admin_url) as direct,
    ):
        open_session(service, "a")
        direct.client_pause(1900)
        answers: list[httpx.Response] = []
        posting = post(service, answers, x=ROWS[0], step=1)
        time.sleep(0.3)
        service.terminate()
        posting.join()
        assert service.wait(10) in (0, -signal.SIGTERM)
    assert [(answer.status_code, answer.json()["step"]) for answer in answers] == [(200, 1)]
    assert "Traceback" not in service.output()


def test_where_redis_hangs_steps_are_refused_and_the_process_ends() -> None:
    with RedisServer() as redis, ConveyorServer(redis_url=redis.url, store_timeout_s=6, drain_timeout_s=2) as service:
        open_session(service, "a")
        httpx.post(f"{service.url}/v1/sessions/a/steps", json={"x": ROWS[0]}).raise_for_status()
        redis.signal(signal.SIGSTOP)
        answers: list[httpx.Response] = []
        posting = [post(service, answers, x=row) for row in ROWS[1:]]
        time.sleep(0.5)
        service.terminate()
        stopped_at = time.monotonic()
        assert service.wait(10) in (0, -signal.SIGTERM)
        assert time.monotonic() - stopped_at < 8
        for each in posting:
            each.join()
        redis.signal(signal.SIGCONT)
    codes = {answer.json()["code"] for answer in answers}
    assert len(answers) == len(ROWS) - 1
    assert codes <= {"shutting_down", "outcome_unknown"}
    assert "outcome_unknown" in codes, "the one that was being written is not called refused"


def test_a_client_that_does_not_read_holds_nobody_up(redis: RedisServer) -> None:
    with ConveyorServer(redis_url=redis.url, drain_timeout_s=1) as service:
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", service.port))
        with connect(f"{service.ws_url}/v1/sessions/deaf/stream?model=hotspot", sock=deaf, max_queue=1) as client:
            client.recv()
            message = json.dumps({"x": [ROWS[0]] * 400, "outputs": "all"})
            for _ in range(30):
                client.send(message)
            time.sleep(0.5)
            service.terminate()
            assert service.wait(10) in (0, -signal.SIGTERM)


def test_a_signal_and_its_echo_are_one(redis: RedisServer) -> None:
    """A terminal's Ctrl-C reaches the workers, and then their supervisor tells them again."""
    with ConveyorServer(redis_url=redis.url) as service, stream_at(service, "/v1/sessions/e/stream?model=hotspot") as s:
        s.receive()
        redis.signal(signal.SIGSTOP)
        s.send(*({"x": row} for row in ROWS))
        time.sleep(0.3)
        service.signal(signal.SIGINT)
        time.sleep(0.1)
        service.signal(signal.SIGTERM)
        time.sleep(0.3)
        redis.signal(signal.SIGCONT)
        assert [s.receive()["step"] for _ in ROWS] == list(range(1, len(ROWS) + 1))
        assert s.closed().code == 1012


def test_a_socket_that_finds_no_redis_is_told_to_come_back() -> None:
    with RedisServer() as redis, ConveyorServer(redis_url=redis.url, store_timeout_s=0.5) as service:
        redis.kill()
        with stream_at(service, "/v1/sessions/a/stream?model=hotspot") as client:
            assert client.receive()["error"]["retry_after_s"] > 0
            assert client.closed().code == 1013


def test_a_client_that_leaves_in_the_middle_of_its_request_is_no_defect(service: ConveyorServer) -> None:
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        client.sendall(b"POST /v1/sessions/a/steps HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{")
    assert httpx.get(f"{service.url}/healthz").status_code == 200
    time.sleep(0.2)
    assert "Traceback" not in service.output()


def test_a_row_that_no_model_could_take_is_refused_unread(client: httpx.Client) -> None:
    for x in ([1.0] * 1000, [[1.0] * 1000], {str(i): 1.0 for i in range(1000)}):
        response = client.post("/v1/sessions/nobody/steps", json={"x": x})
        require_problem(response, 422, "invalid_request", "1000 numbers to a timestep")
