"""Tenants and their sessions: over every route and both sockets, another tenant's session is as if it were not there.

Every operation of the OpenAPI document is called, so that a route that is added has to say here how it is called.
"""

import base64
import itertools
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.adapters.redis_store import redis_key
from service.api.gate import OPEN
from service.app import create_app
from service.core.access import TENANT
from service.core.session import SessionKey
from service.settings import Settings
from tests.api.wire import readings, require_problem, stream, stream_at
from tests.security.credentials import bearer
from tests.servers import ConveyorServer, RedisServer, redis_command

ROW, OTHER_ROW = readings(2)
OWNER = "a"
INTRUDERS = ("a-b", "ab", "a.", "~", "A")
MODEL = {"model": "hotspot"}


class Call(NamedTuple):
    """How an operation is called for a session; `{id}` and `{state}` stand for it and for its bytes."""

    json: Any = None
    content: str | None = None
    absent: int = 404
    """What it answers where there is no such session."""


CALLS = {
    "POST /v1/sessions": Call(MODEL | {"session_id": "{id}"}, absent=201),
    "GET /v1/sessions": Call(absent=200),
    "PUT /v1/sessions/{session_id}": Call(MODEL, absent=201),
    "GET /v1/sessions/{session_id}": Call(),
    "DELETE /v1/sessions/{session_id}": Call(),
    "POST /v1/sessions/{session_id}/reset": Call(),
    "POST /v1/sessions/{session_id}/fork": Call({}),
    "GET /v1/sessions/{session_id}/state": Call(),
    "PUT /v1/sessions/{session_id}/state": Call(content="{state}", absent=201),
    "POST /v1/sessions/{session_id}/steps": Call({"x": ROW}),
    "POST /v1/steps": Call({"steps": [{"session_id": "{id}", "x": ROW}]}, absent=200),
    "GET /v1/models": Call(absent=200),
    "GET /v1/models/{name}": Call(absent=200),
    "GET /v1/models/{name}/versions/{version}": Call(absent=200),
    "POST /v1/tickets": Call(absent=201),
    "GET /metrics": Call(absent=403),  # which are of all tenants, and need a scope of their own
}


def operations() -> list[str]:
    """All that OpenAPI knows, and that is not for everybody."""
    paths = create_app(Settings(api_keys=Path("keys.json"))).openapi()["paths"]
    return [f"{method.upper()} {path}" for path in paths if path not in OPEN for method in paths[path]]


@pytest.fixture(scope="module")
def clients(guarded: ConveyorServer, keys: dict[str, str]) -> Iterator[dict[str, httpx.Client]]:
    made = {
        tenant: httpx.Client(base_url=guarded.url, headers=bearer(keys[tenant]), timeout=30)
        for tenant in (OWNER, *INTRUDERS)
    }
    yield made
    for client in made.values():
        client.close()


def opened(client: httpx.Client, session_id: str, *rows: list[float]) -> bytes:
    """Open a session, advance it, and return its state."""
    assert client.put(f"/v1/sessions/{session_id}", json=MODEL).status_code == 201
    for row in rows:
        assert client.post(f"/v1/sessions/{session_id}/steps", json={"x": row}).status_code == 200
    return state_of(client, session_id)


def state_of(client: httpx.Client, session_id: str) -> bytes:
    response = client.get(f"/v1/sessions/{session_id}/state")
    assert response.status_code == 200
    return response.content


def call(client: httpx.Client, operation: str, session_id: str, state: bytes) -> httpx.Response:
    method, path = operation.split()
    sent = CALLS[operation]
    content = state if sent.content else None
    if sent.json is not None:
        content = json.dumps(sent.json).replace("{id}", session_id).encode()
    return client.request(
        method,
        path.format(session_id=session_id, name="hotspot", version="1"),
        content=content,
        headers={"content-type": "application/octet-stream" if sent.content else "application/json"},
    )


def seen(response: httpx.Response, session_id: str) -> tuple[object, ...]:
    """All that a response tells, but for the session's name, for times, and for names that were drawn."""
    headers = {name: value for name, value in response.headers.items() if name not in ("date", "content-length")}
    content: Any = response.content.replace(session_id.encode(), b"{id}")
    if response.headers.get("content-type") == "application/json" and response.status_code in (200, 201):
        content = json.loads(content)
        content.pop("expires_at", None)
        content.pop("ticket", None)
    return response.status_code, headers, content


@pytest.mark.parametrize("operation", operations())
@pytest.mark.parametrize("intruder", INTRUDERS)
def test_a_session_of_another_tenant_is_as_if_it_were_not_there(
    clients: dict[str, httpx.Client], operation: str, intruder: str
) -> None:
    owner, other = clients[OWNER], clients[intruder]
    theirs, absent = (str(uuid.uuid4()) for _ in range(2))
    state = opened(owner, theirs, ROW, OTHER_ROW)

    one, two = call(other, operation, theirs, state), call(other, operation, absent, state)
    assert one.status_code == two.status_code == CALLS[operation].absent, one.text
    if operation == "GET /v1/sessions":
        assert theirs not in one.text
    else:
        assert seen(one, theirs) == seen(two, absent)
    assert state_of(owner, theirs) == state

    # The session is there, and its own tenant is told something else of it, where the operation is about sessions.
    if "sessions" in operation or "steps" in operation:
        assert seen(call(owner, operation, theirs, state), theirs) != seen(two, absent)


@pytest.mark.parametrize("intruder", INTRUDERS)
@pytest.mark.parametrize("path", ["/v1/sessions/{id}/stream", "/v1/sessions/{id}/stream?model=hotspot", "/v1/stream"])
def test_on_sockets_a_session_of_another_tenant_is_not_there_either(
    guarded: ConveyorServer, keys: dict[str, str], clients: dict[str, httpx.Client], intruder: str, path: str
) -> None:
    owner = clients[OWNER]
    theirs, absent = (str(uuid.uuid4()) for _ in range(2))
    state = opened(owner, theirs, ROW, OTHER_ROW)

    def told(tenant: str, session_id: str) -> str:
        """All that a socket says, up to its end."""
        with stream_at(guarded, path.format(id=session_id), additional_headers=bearer(keys[tenant])) as socket:
            first = None if path == "/v1/stream" else socket.receive()
            if first is not None and "error" in first:
                said: list[object] = [first, socket.closed()]
            else:
                said = [first, socket.ask({"session_id": session_id, "x": ROW} if first is None else {"x": ROW})]
            return str(said).replace(session_id, "{id}")

    assert told(intruder, theirs) == told(intruder, absent)
    assert state_of(owner, theirs) == state
    assert told(OWNER, theirs) != told(intruder, absent)


AWKWARD = ("b:c", ":", "a:b:c", "-b:x", "~", "@", "A", "..-", "a", "a" * 128)


def test_each_tenant_lists_and_steps_its_own_sessions_whatever_they_are_called(
    clients: dict[str, httpx.Client],
) -> None:
    for count, client in enumerate(clients.values(), 1):
        for session_id in AWKWARD:
            opened(client, session_id, *[ROW] * count)
    for count, client in enumerate(clients.values(), 1):
        found: dict[str, int] = {}
        cursor = None
        for page in itertools.count():
            assert page < 10_000
            query = {"limit": "3"} | ({"cursor": cursor} if cursor else {})
            answer = client.get("/v1/sessions", params=query).json()
            found |= {session["session_id"]: session["step"] for session in answer["sessions"]}
            if (cursor := answer["cursor"]) is None:
                break
        assert {name: found.get(name) for name in AWKWARD} == dict.fromkeys(AWKWARD, count)
        for session_id in AWKWARD:
            assert client.delete(f"/v1/sessions/{session_id}").status_code == 204
            assert client.get(f"/v1/sessions/{session_id}").status_code == 404


def test_a_cursor_shows_its_bearer_nothing_that_is_not_theirs(clients: dict[str, httpx.Client]) -> None:
    owner, other = clients[OWNER], clients["ab"]
    names = [f"page-{uuid.uuid4()}" for _ in range(12)]
    for name in names:
        opened(owner, name)
    opened(other, names[0], ROW)
    cursors = [owner.get("/v1/sessions", params={"limit": limit}).json()["cursor"] for limit in (1, 2, 5)]
    made_up = (names, [f"a:{name}" for name in names], [f"}}:a:{names[1]}", "*", "[a]", f"../a:{names[1]}"])
    cursors += [base64.urlsafe_b64encode(json.dumps([None, *ids]).encode()).decode() for ids in made_up]
    for cursor in filter(None, cursors):
        page = other.get("/v1/sessions", params={"cursor": cursor, "limit": 1000}).json()
        told = {session["session_id"]: session["step"] for session in page["sessions"]}
        assert not told.keys() & set(names[1:])
        assert told.get(names[0], 1) == 1, "their own session of that name, and not the owner's"


def test_a_name_that_another_tenant_has_is_free(clients: dict[str, httpx.Client]) -> None:
    owner, other = clients[OWNER], clients["a-b"]
    name, fork = str(uuid.uuid4()), str(uuid.uuid4())
    state = opened(owner, name, ROW)
    assert other.post("/v1/sessions", json=MODEL | {"session_id": name}).status_code == 201
    require_problem(other.post("/v1/sessions", json=MODEL | {"session_id": name}), 409, "session_exists")
    # A fork goes to a name of one's own, though the owner has one that is called so.
    opened(owner, fork, ROW, ROW)
    assert other.post(f"/v1/sessions/{name}/fork", json={"session_id": fork}).status_code == 201
    assert other.get(f"/v1/sessions/{fork}").json()["step"] == 0
    assert owner.get(f"/v1/sessions/{fork}").json()["step"] == 2
    for gone in (name, fork):
        assert other.delete(f"/v1/sessions/{gone}").status_code == 204
    assert state_of(owner, name) == state


def test_a_session_that_was_handed_over_as_bytes_goes_its_own_way(clients: dict[str, httpx.Client]) -> None:
    owner, other = clients[OWNER], clients["ab"]
    name = str(uuid.uuid4())
    state = opened(owner, name, ROW)
    assert other.put(f"/v1/sessions/{name}/state", content=state).status_code == 201
    answers = [client.post(f"/v1/sessions/{name}/steps", json={"x": OTHER_ROW, "step": 2}) for client in (other, owner)]
    assert [answer.json()["replayed"] for answer in answers] == [False, False]
    assert answers[0].json()["outputs"] == answers[1].json()["outputs"]
    assert other.delete(f"/v1/sessions/{name}").status_code == 204
    assert owner.get(f"/v1/sessions/{name}").json()["step"] == 2


def test_of_many_steps_each_is_for_a_session_of_who_asks(
    guarded: ConveyorServer, keys: dict[str, str], clients: dict[str, httpx.Client]
) -> None:
    owner, other = clients[OWNER], clients["A"]
    shared, theirs = str(uuid.uuid4()), str(uuid.uuid4())
    opened(owner, shared, ROW, ROW)
    opened(owner, theirs)
    opened(other, shared)
    steps = [
        {"session_id": shared, "x": ROW},
        {"session_id": theirs, "x": ROW},
        {"session_id": f"a:{theirs}", "x": ROW},
    ]
    results = other.post("/v1/steps", json={"steps": steps}).json()["results"]
    assert [result.get("step") or result["error"]["status"] for result in results] == [1, 404, 404]
    with stream_at(guarded, "/v1/stream", additional_headers=bearer(keys["A"])) as socket:
        results = socket.ask(steps)
    assert [result.get("step") or result["error"]["status"] for result in results] == [2, 404, 404]
    with stream(guarded, shared, additional_headers=bearer(keys[OWNER])) as socket:
        assert socket.receive()["step"] == 2


def test_the_metrics_name_neither_sessions_nor_tenants(
    guarded: ConveyorServer, keys: dict[str, str], clients: dict[str, httpx.Client]
) -> None:
    name = str(uuid.uuid4())
    opened(clients["a-b"], name, ROW)
    metrics = httpx.get(guarded.url + "/metrics", headers=bearer(keys["metrics"])).text
    assert "conveyor_" in metrics
    assert name not in metrics
    assert "a-b" not in metrics


TENANTS = st.from_regex(TENANT, fullmatch=True)
SESSION_IDS = st.text("ABab01._~:@-", min_size=1, max_size=12)


@given(TENANTS, SESSION_IDS, TENANTS, SESSION_IDS)
def test_no_two_sessions_share_a_key(tenant: str, session_id: str, other: str, other_id: str) -> None:
    one, two = SessionKey(tenant, session_id), SessionKey(other, other_id)
    assert (redis_key(one) == redis_key(two)) == (one == two)
    assert redis_key(one).split(":", 3)[2:] == [tenant, session_id]


@pytest.mark.parametrize(
    "name", ["", "a:b", "a*", "a?", "[a]", "a\\", "{a}", "a b", "a\n", "é", "a" * 65, "a/b", "a\x00"]
)
def test_what_could_be_taken_for_another_tenant_is_no_tenants_name(name: str) -> None:
    assert TENANT.fullmatch(name) is None


def test_a_session_stands_in_redis_under_its_tenants_name(redis: RedisServer, clients: dict[str, httpx.Client]) -> None:
    name = f"{uuid.uuid4()}:~"
    for client in clients.values():
        opened(client, name)
    found = redis_command(redis.url, "KEYS", f"*{name}")
    assert {key.split(":", 3)[2] for key in found} == {OWNER, *INTRUDERS}
