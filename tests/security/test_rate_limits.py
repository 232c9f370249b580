"""Rate limits: counted in timesteps, refused one by one, told in the headers."""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import httpx
import pytest
from pydantic import ValidationError

from service.settings import Settings
from tests.api.wire import require_problem, require_problem_body, step_count, stream
from tests.security.callers import SELDOM, Caller, X
from tests.security.credentials import ALL, KeyRing, bearer
from tests.servers import ConveyorServer


class Holder(NamedTuple):
    """Whose key it is, and what it allows."""

    tenant: str
    name: str
    rate_per_s: float | None = None
    burst: int | None = None


HOLDERS = {
    "steps": Holder("steps", "key", rate_per_s=SELDOM, burst=6),
    "many": Holder("many", "key", rate_per_s=SELDOM, burst=5),
    "socket": Holder("socket", "key", rate_per_s=2, burst=5),
    "gateway": Holder("gateway", "key", rate_per_s=SELDOM, burst=6),
    "handshake": Holder("handshake", "key", rate_per_s=SELDOM, burst=1),
    "ticket": Holder("ticket", "key", rate_per_s=SELDOM, burst=3),
    "refused": Holder("refused", "key", rate_per_s=SELDOM, burst=100),
    "history": Holder("history", "key", rate_per_s=SELDOM, burst=10),
    "returning": Holder("returning", "key", rate_per_s=4, burst=2),
    "flooding": Holder("shared", "flooding", rate_per_s=SELDOM, burst=5),
    "neighbour": Holder("shared", "neighbour", rate_per_s=SELDOM, burst=5),
    "twin": Holder("shared", "flooding", rate_per_s=SELDOM, burst=5),
    "namesake": Holder("elsewhere", "flooding", rate_per_s=SELDOM, burst=5),
    "default": Holder("default", "key"),
}


@pytest.fixture(scope="module")
def callers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Caller]]:
    """Those of `HOLDERS`, at one service."""
    ring = KeyRing(tmp_path_factory.mktemp("keys") / "keys.json")
    headers = {
        label: bearer(ring.add(tenant, *ALL, name=name, rate_per_s=rate, burst=burst))
        for label, (tenant, name, rate, burst) in HOLDERS.items()
    }
    settings = {"redis_url": "memory://", "api_keys": ring.path, "max_queue": 16, "rate_limit": SELDOM, "rate_burst": 3}
    with ConveyorServer(**settings) as service, ExitStack() as stack:
        found = {label: Caller(service, headers[label]) for label in HOLDERS}
        for caller in found.values():
            stack.enter_context(caller.client)
        yield found


def told(response: httpx.Response) -> tuple[int, int]:
    """Return what a response says is left, and in how many seconds the bucket is full."""
    found = re.fullmatch(r'"default";r=(\d+);t=(\d+)', response.headers["ratelimit"])
    assert found, response.headers["ratelimit"]
    return int(found[1]), int(found[2])


def require_limited(error: dict[str, object]) -> None:
    require_problem_body(error, 429, "rate_limited", "timesteps per second")
    assert float(str(error["retry_after_s"])) > 0


def test_without_a_limit_nothing_is_said_of_one(client: httpx.Client) -> None:
    assert not [name for name in client.get("/v1/models").headers if "ratelimit" in name]


def test_a_step_beyond_the_limit_is_refused_and_advances_nothing(callers: dict[str, Caller]) -> None:
    caller = callers["steps"]
    caller.open("pump")
    for left in (4, 3):
        answer = caller.step("pump")
        assert answer.status_code == 200
        assert told(answer)[0] == left
        assert answer.headers["ratelimit-policy"] == '"default";q=6;w=6000'
    refused = caller.step("pump", [X] * 4, step=3)
    require_problem(refused, 429, "rate_limited", "0.001 timesteps per second", "6 of them at once")
    assert told(refused)[0] == 3, "what is refused costs nothing"
    assert told(refused)[1] == pytest.approx(3000, abs=60)
    assert caller.client.get("/v1/models").status_code == 200
    assert step_count(caller.client, "pump") == 2
    assert caller.step("pump").status_code == 200
    require_problem(caller.client.get("/v1/sessions/pump"), 429, "rate_limited")
    require_problem(caller.client.post("/v1/tickets"), 429, "rate_limited")
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        assert caller.client.get(path).status_code == 200, "what watches the service is not counted"
    assert 'conveyor_refusals_total{code="rate_limited"}' in caller.client.get("/metrics").text


def test_of_many_steps_in_one_call_each_is_counted_on_its_own(callers: dict[str, Caller]) -> None:
    caller = callers["many"]
    caller.open("a", "b")
    steps = [{"session_id": id_, "x": X} for id_ in ("a", "b", "a", "b", "a")]
    answer = caller.client.post("/v1/steps", json={"steps": steps})
    assert answer.status_code == 200
    assert told(answer)[0] == 0
    results = answer.json()["results"]
    assert [result.get("step") for result in results] == [1, 1, 2, None, None]
    for result in results[3:]:
        require_limited(result["error"])


def test_on_a_socket_it_is_an_error_in_its_place_and_the_socket_stays_open(callers: dict[str, Caller]) -> None:
    with callers["socket"].socket("/v1/sessions/pump/stream?model=hotspot") as opened:
        assert opened.receive()["step"] == 0
        opened.send(*({"x": [X, X]} for _ in range(5)))
        answers = [opened.receive() for _ in range(5)]
        assert [answer.get("step") for answer in answers[:2]] == [2, 4]
        require_limited(answers[4]["error"])
        time.sleep(answers[4]["error"]["retry_after_s"] + 0.05)
        assert "step" in opened.ask({"x": [X, X]})


def test_so_it_is_on_a_socket_of_many_sessions(callers: dict[str, Caller]) -> None:
    caller = callers["gateway"]
    caller.open("a", "b")
    with caller.socket() as opened:
        first = opened.ask([{"session_id": id_, "x": X} for id_ in ("a", "b", "a", "b")])
        assert [answer.get("step") for answer in first] == [1, 1, 2, None]
        require_limited(first[3]["error"])
        assert first[3]["session_id"] == "b"
        require_limited(opened.ask({"session_id": "b", "x": X})["error"])
        assert opened.ask([]) == []


def test_a_handshake_counts_and_is_refused_in_words(callers: dict[str, Caller]) -> None:
    with callers["handshake"].socket() as opened:
        assert opened.ask([]) == []
    with callers["handshake"].socket() as opened:
        require_limited(opened.receive()["error"])
        assert opened.closed().code == 1013


def test_who_comes_with_a_ticket_has_the_limit_of_who_asked_for_it(callers: dict[str, Caller]) -> None:
    caller = callers["ticket"]
    ticket = caller.client.post("/v1/tickets").json()["ticket"]
    with stream(caller.service, "pump", f"?model=hotspot&ticket={ticket}") as opened:
        assert opened.receive()["step"] == 0
        assert opened.ask({"x": X})["step"] == 1
        require_limited(opened.ask({"x": X})["error"])
    assert caller.ask_until_refused() == 0


def test_a_step_that_is_not_admitted_for_another_reason_is_not_counted(callers: dict[str, Caller]) -> None:
    caller = callers["refused"]
    caller.open("pump")
    caller.open("other")
    steps = [{"session_id": "pump", "x": [X] * 20}, {"session_id": "other", "x": X}]
    taken, refused = caller.client.post("/v1/steps", json={"steps": steps}).json()["results"]
    assert (taken["step"], refused["error"]["code"]) == (20, "overloaded")
    assert told(caller.step("pump"))[0] == 100 - 2 - 20 - 1


def test_a_history_counts_as_its_timesteps(callers: dict[str, Caller]) -> None:
    client = callers["history"].client
    answer = client.put("/v1/sessions/a", json={"model": "hotspot", "history": [X] * 4})
    assert (answer.status_code, told(answer)[0]) == (201, 6)
    refused = client.post("/v1/sessions", json={"model": "hotspot", "history": [X] * 7, "session_id": "b"})
    require_problem(refused, 429, "rate_limited")
    assert told(refused)[0] == 6
    assert client.get("/v1/sessions/b").status_code == 404
    assert client.post("/v1/sessions", json={"model": "hotspot", "history": [X] * 5}).status_code == 201
    assert callers["history"].ask_until_refused() == 0


def test_who_comes_back_when_told_is_admitted(callers: dict[str, Caller]) -> None:
    caller = callers["returning"]
    caller.open("pump")
    waits = 0
    for number in range(1, 9):
        while (answer := caller.step("pump", step=number)).status_code == 429:
            waits += 1
            time.sleep(answer.json()["retry_after_s"] + 0.01)
        assert answer.json()["step"] == number
    assert waits <= 8, "somebody was told to come back too early"


def test_a_flood_of_one_key_leaves_the_others_what_they_have(callers: dict[str, Caller]) -> None:
    assert callers["flooding"].ask_until_refused() == 5
    assert callers["twin"].ask_until_refused() == 0, "keys of one name are one, as when a key is replaced"
    assert callers["neighbour"].ask_until_refused() == 5
    assert callers["namesake"].ask_until_refused() == 5


def test_a_key_without_a_limit_has_that_of_all(callers: dict[str, Caller]) -> None:
    assert callers["default"].ask_until_refused() == 3


@pytest.mark.parametrize("limit", [{"rate_limit": 0}, {"rate_limit": -1}, {"rate_burst": 5}, {"allowed_origins": "a"}])
def test_a_limit_that_is_none_ends_the_start(limit: dict[str, object]) -> None:
    service = ConveyorServer(redis_url="memory://", **limit)
    try:
        service.start(wait=False)
        assert service.wait(30) in (1, 2)
        (name,) = limit
        assert name in service.output().lower()
    finally:
        service.close()


@pytest.mark.parametrize("setting", [{"rate_limit": rate} for rate in ("inf", "nan", "1e-9", "1e9", "0")], ids=str)
def test_a_rate_that_cannot_be_meant_is_refused_at_the_start(setting: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="rate_limit"):
        Settings(**setting)
