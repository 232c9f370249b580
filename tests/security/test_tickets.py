"""Tickets for browsers' WebSockets: each opens one socket, as who asked for it, and stands in no log."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep
from typing import Any

import httpx
import pytest

from service.api.tickets import taken_out
from service.core.access import Scope
from tests.api.wire import Stream, readings, require_problem, require_problem_body, stream, stream_at
from tests.security.credentials import ALL, KeyRing, bearer
from tests.servers import ConveyorServer, RedisServer, redis_command, wait_until


def issue(service: ConveyorServer, **headers: str) -> str:
    response = httpx.post(f"{service.url}/v1/tickets", headers=headers, timeout=30)
    assert response.status_code == 201, response.text
    assert response.headers["cache-control"] == "no-store"
    assert response.json().keys() == {"ticket", "expires_in_s"}
    return str(response.json()["ticket"])


def require_refused(opened: Stream) -> None:
    """Assert that a socket was told that its ticket is not good, and was closed for it."""
    require_problem_body(opened.receive()["error"], 401, "unauthenticated", "ticket")
    assert opened.closed().code == 1008


@pytest.fixture(scope="module")
def logging_service(redis: RedisServer) -> Iterator[ConveyorServer]:
    """Two processes that log all they can."""
    with ConveyorServer(redis_url=redis.url, workers=2, log_level="debug", access_log="true") as service:
        yield service


def test_a_ticket_opens_a_socket_once(service: ConveyorServer, session_id: str) -> None:
    ticket = issue(service)
    with stream(service, session_id, f"?model=hotspot&ticket={ticket}") as opened:
        assert opened.receive()["session_id"] == session_id
        assert opened.ask({"x": readings(1)[0]})["step"] == 1
    with stream(service, session_id, f"?ticket={ticket}") as again:
        require_refused(again)


@pytest.mark.parametrize("query", ["ticket=", "ticket=forged", "ticket=%00", "ticket=" + "x" * 5000])
def test_a_forged_ticket_opens_nothing(service: ConveyorServer, query: str) -> None:
    with stream_at(service, f"/v1/stream?{query}") as opened:
        require_refused(opened)


def test_two_tickets_in_one_query_are_refused_and_not_used(service: ConveyorServer) -> None:
    ticket = issue(service)
    with stream_at(service, f"/v1/stream?ticket={ticket}&ticket={ticket}") as opened:
        require_problem_body(opened.receive()["error"], 401, "unauthenticated", "more than one ticket")
    with stream_at(service, f"/v1/stream?ticket={ticket}") as opened:
        assert opened.ask([]) == []


def test_of_many_who_show_one_ticket_to_two_processes_one_gets_in(
    logging_service: ConveyorServer, session_id: str
) -> None:
    ticket = issue(logging_service)

    def first_message(_: int) -> Any:
        with stream(logging_service, session_id, f"?model=hotspot&ticket={ticket}") as opened:
            return opened.receive()

    with ThreadPoolExecutor(8) as pool:
        messages = list(pool.map(first_message, range(8)))
    assert [message["step"] for message in messages if "error" not in message] == [0]
    assert {message["error"]["code"] for message in messages if "error" in message} == {"unauthenticated"}


def test_a_ticket_expires(redis: RedisServer) -> None:
    with ConveyorServer(redis_url=redis.url, ticket_ttl_s=0.2) as service:
        ticket = issue(service)
        sleep(0.5)
        with stream_at(service, f"/v1/stream?ticket={ticket}") as opened:
            require_refused(opened)


def test_without_redis_tickets_work_as_well() -> None:
    with ConveyorServer(redis_url="memory://") as service:
        ticket = issue(service)
        with stream_at(service, f"/v1/stream?ticket={ticket}") as opened:
            assert opened.ask([]) == []
        with stream_at(service, f"/v1/stream?ticket={ticket}") as opened:
            require_refused(opened)


def test_where_redis_is_away_a_page_is_told_to_come_back() -> None:
    with RedisServer() as redis, ConveyorServer(redis_url=redis.url, store_timeout_s=0.5) as service:
        ticket = issue(service)
        redis.kill()
        with stream_at(service, f"/v1/stream?ticket={ticket}") as opened:
            require_problem_body(opened.receive()["error"], 503, "store_unavailable")
            assert opened.closed().code == 1013
        response = httpx.post(f"{service.url}/v1/tickets", timeout=30)
        assert response.status_code == 503


@pytest.mark.parametrize(
    ("query", "left"),
    [
        (b"ticket=t0p", b""),
        (b"model=a%20b&ticket=t0p&ttl_s=5", b"model=a+b&ttl_s=5"),
        (b"version=&ticket=t0p", b"version="),
    ],
)
def test_what_reads_the_query_after_it_was_used_finds_no_ticket(query: bytes, left: bytes) -> None:
    scope = {"query_string": query}
    assert taken_out(scope) == ["t0p"]
    assert scope["query_string"] == left


def test_no_log_has_a_ticket_nor_an_error_nor_redis(
    logging_service: ConveyorServer, redis: RedisServer, session_id: str
) -> None:
    tickets = [issue(logging_service) for _ in range(4)]
    answers = []
    for ticket, query in zip(
        tickets, ("?ticket=", "?ttl_s=x&model=hotspot&ticket=", "?model=no&ticket="), strict=False
    ):
        with stream(logging_service, session_id, query + ticket) as opened:
            answers.append(opened.receive())
    with stream_at(logging_service, f"/v1/stream?ticket={tickets[0]}") as opened:
        answers.append(opened.receive())
    httpx.get(f"{logging_service.url}/v1/nothing?ticket={tickets[3]}", headers={"authorization": "Bearer s3cr3t-key"})
    sleep(0.2)
    output = logging_service.output()
    assert f"/v1/sessions/{session_id}/stream" in output, "it logs requests"
    assert "ticket=***" in output, "the libraries show what they read"
    for ticket in tickets:
        assert ticket not in output
        assert ticket not in str(answers)
        assert redis_command(redis.url, "KEYS", f"*{ticket}*") == []
    assert "s3cr3t-key" not in output


def test_a_ticket_is_for_who_asked_and_for_no_more_than_they_may(
    redis: RedisServer, tmp_path: Path, session_id: str
) -> None:
    ring = KeyRing(tmp_path / "keys.json")
    plant, rival = ring.add("plant", *ALL), ring.add("rival", *ALL)
    stepper, reader = ring.add("plant", Scope.STEP), ring.add("plant", Scope.METRICS)
    with ConveyorServer(redis_url=redis.url, api_keys=ring.path) as service:
        with httpx.Client(base_url=service.url, headers=bearer(plant), timeout=30) as client:
            assert client.put(f"/v1/sessions/{session_id}", json={"model": "hotspot"}).status_code == 201

        def hello(key: str, query: str = "?") -> Any:
            with stream(service, session_id, f"{query}&ticket={issue(service, **bearer(key))}") as opened:
                return opened.receive()

        assert hello(plant)["step"] == 0
        assert hello(stepper)["step"] == 0
        require_problem_body(hello(rival)["error"], 404, "session_not_found")
        require_problem_body(hello(reader)["error"], 403, "forbidden", "step")
        require_problem_body(hello(stepper, "?model=hotspot")["error"], 403, "forbidden", "sessions")

        require_problem(httpx.post(f"{service.url}/v1/tickets"), 401, "unauthenticated")
        ticket = issue(service, **bearer(plant))
        require_problem(httpx.get(f"{service.url}/v1/sessions?ticket={ticket}"), 401, "unauthenticated")
        require_problem(httpx.post(f"{service.url}/v1/tickets?ticket={ticket}"), 401, "unauthenticated")

        ring.remove(plant)
        assert wait_until(lambda: httpx.get(service.url + "/v1/models", headers=bearer(plant)).status_code == 401, 30)
        with stream(service, session_id, f"?ticket={ticket}") as opened:
            require_refused(opened)


def test_a_socket_that_a_ticket_opened_ends_with_the_key(redis: RedisServer, tmp_path: Path, session_id: str) -> None:
    ring = KeyRing(tmp_path / "keys.json")
    key = ring.add("plant", *ALL)
    with ConveyorServer(redis_url=redis.url, api_keys=ring.path) as service:
        with stream(service, session_id, f"?model=hotspot&ticket={issue(service, **bearer(key))}") as opened:
            assert opened.receive()["step"] == 0
            assert opened.ask({"x": readings(1)[0]})["step"] == 1
            ring.remove(key)
            require_problem_body(opened.receive()["error"], 401, "unauthenticated", "no longer good")
            assert opened.closed().code == 1008
