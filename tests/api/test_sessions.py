"""A session's life outside of its timesteps: opened, primed, listed, reset, forked, carried elsewhere, expired."""

import time
from datetime import UTC, datetime

import httpx
import pytest

from tests.api.wire import readings, require_problem, step, step_count
from tests.conftest import OpenSession
from tests.servers import ConveyorServer, RedisServer, wait_until

WEEK_S = 7 * 24 * 3600


def lifetime_s(info: dict[str, str]) -> float:
    """Return the seconds that a session has left by its own account."""
    return (datetime.fromisoformat(info["expires_at"]) - datetime.now(UTC)).total_seconds()


def test_a_new_session_stands_before_its_first_timestep(client: httpx.Client, session_id: str) -> None:
    response = client.post("/v1/sessions", json={"model": "hotspot", "session_id": session_id})
    assert response.status_code == 201
    info = response.json()
    assert lifetime_s(info) == pytest.approx(WEEK_S, abs=5)
    assert info | {"expires_at": ""} == {
        "session_id": session_id,
        "model": "hotspot",
        "version": "1",
        "step": 0,
        "expires_at": "",
    }
    assert client.get(f"/v1/sessions/{session_id}").json() == info


def test_a_session_without_a_name_gets_one_of_its_own(open_session: OpenSession) -> None:
    assert len({open_session() for _ in range(3)}) == 3


@pytest.mark.parametrize("id_", ["pump-7", "a.b_c~d:e@f", "7", "...", "x" * 128])
def test_every_allowed_id_works_in_a_path(client: httpx.Client, id_: str) -> None:
    client.delete(f"/v1/sessions/{id_}")
    assert client.put(f"/v1/sessions/{id_}", json={"model": "hotspot"}).status_code == 201
    assert step(client, id_, readings(1)[0])["session_id"] == id_


def test_put_opens_a_session_once_and_resumes_it_ever_after(client: httpx.Client, session_id: str) -> None:
    message = {"model": "hotspot", "history": readings(3)}
    created = client.put(f"/v1/sessions/{session_id}", json=message)
    answer = step(client, session_id, readings(1)[0])
    resumed = client.put(f"/v1/sessions/{session_id}", json=message)
    assert [created.status_code, resumed.status_code] == [201, 200]
    assert [created.json()["step"], resumed.json()["step"]] == [3, 4]
    assert resumed.json()["outputs"] == answer["outputs"]


def test_history_primes_as_its_steps_would_have(client: httpx.Client, open_session: OpenSession) -> None:
    history = readings(40)
    stepped = open_session()
    for row in history:
        answer = step(client, stepped, row)
    primed = client.get(f"/v1/sessions/{open_session(history=history)}").json()
    assert (primed["step"], primed["outputs"]) == (40, answer["outputs"])


@pytest.mark.parametrize("verb", ["create", "fork"])
def test_a_time_to_live_is_the_creators_choice(client: httpx.Client, open_session: OpenSession, verb: str) -> None:
    session_id = open_session(ttl_s=120 if verb == "create" else 3600)
    if verb == "fork":
        session_id = client.post(f"/v1/sessions/{session_id}/fork", json={"ttl_s": 120}).json()["session_id"]
    assert lifetime_s(client.get(f"/v1/sessions/{session_id}").json()) == pytest.approx(120, abs=5)


def test_a_session_expires_unless_it_is_stepped(client: httpx.Client, open_session: OpenSession) -> None:
    kept, left = open_session(ttl_s=2), open_session(ttl_s=1)
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:
        step(client, kept, readings(1)[0])
        time.sleep(0.2)
    require_problem(client.get(f"/v1/sessions/{left}"), 404, "session_not_found", "has expired")
    response = client.post(f"/v1/sessions/{left}/steps", json={"x": readings(1)[0]})
    require_problem(response, 404, "session_not_found", "has expired")
    assert wait_until(lambda: client.get(f"/v1/sessions/{kept}").status_code == 404, 5, 0.1)


def test_a_deleted_session_is_gone_and_its_name_free(client: httpx.Client, open_session: OpenSession) -> None:
    session_id = open_session(history=readings(2))
    step(client, session_id, readings(1)[0])
    response = client.delete(f"/v1/sessions/{session_id}")
    assert (response.status_code, response.content) == (204, b"")
    require_problem(client.delete(f"/v1/sessions/{session_id}"), 404, "session_not_found")
    require_problem(
        client.post(f"/v1/sessions/{session_id}/steps", json={"x": readings(1)[0]}), 404, "session_not_found"
    )
    assert client.put(f"/v1/sessions/{session_id}", json={"model": "hotspot"}).json()["step"] == 0


def test_a_listing_gives_every_session_once_over_its_pages(client: httpx.Client, open_session: OpenSession) -> None:
    opened = {open_session(ttl_s=60) for _ in range(25)}
    listed: list[str] = []
    query: dict[str, str | int] = {"limit": 4, "model": "hotspot"}
    while True:
        page = client.get("/v1/sessions", params=query).json()
        assert len(page["sessions"]) <= 4
        assert {info["model"] for info in page["sessions"]} <= {"hotspot"}
        listed += [info["session_id"] for info in page["sessions"]]
        if page["cursor"] is None:
            break
        query["cursor"] = page["cursor"]
    assert opened <= set(listed)
    assert len(listed) == len(set(listed))


def test_a_listing_of_another_model_is_empty(client: httpx.Client, open_session: OpenSession) -> None:
    open_session(ttl_s=60)
    assert client.get("/v1/sessions", params={"model": "nope", "limit": 1000}).json() == {
        "sessions": [],
        "cursor": None,
    }


def test_a_reset_session_starts_over(client: httpx.Client, open_session: OpenSession) -> None:
    session_id = open_session(ttl_s=900)
    first = step(client, session_id, readings(1)[0])
    step(client, session_id, readings(3))
    info = client.post(f"/v1/sessions/{session_id}/reset").json()
    assert (info["step"], "outputs" in info) == (0, False)
    assert lifetime_s(info) == pytest.approx(900, abs=5)
    assert step(client, session_id, readings(1)[0], step=1) == first


def test_a_fork_goes_its_own_way(client: httpx.Client, open_session: OpenSession, session_id: str) -> None:
    source = open_session(history=readings(5))
    response = client.post(f"/v1/sessions/{source}/fork", json={"session_id": session_id})
    assert response.status_code == 201
    info = response.json()
    assert (info["session_id"], info["step"]) == (session_id, 5)
    same, other = readings(2, seed=1)
    assert step(client, session_id, same)["outputs"] == step(client, source, same)["outputs"]
    assert step(client, session_id, other)["outputs"] != step(client, source, same)["outputs"]


@pytest.mark.parametrize("body", [None, {}], ids=["no body", "an empty one"])
def test_a_fork_without_a_name_gets_one(client: httpx.Client, open_session: OpenSession, body: object) -> None:
    source = open_session()
    fork = client.post(f"/v1/sessions/{source}/fork", json=body).json()
    assert fork["session_id"] != source
    assert step_count(client, fork["session_id"]) == 0


def test_a_record_goes_on_under_another_name(client: httpx.Client, open_session: OpenSession, session_id: str) -> None:
    source = open_session(history=readings(7), ttl_s=500)
    record = client.get(f"/v1/sessions/{source}/state")
    assert record.headers["content-type"] == "application/octet-stream"
    restored = client.put(f"/v1/sessions/{session_id}/state", content=record.content)
    assert (restored.status_code, restored.json()["step"]) == (201, 7)
    assert lifetime_s(restored.json()) == pytest.approx(500, abs=5)
    following = readings(1, seed=1)[0]
    assert step(client, session_id, following)["outputs"] == step(client, source, following)["outputs"]


def test_a_record_takes_a_session_back_in_time(client: httpx.Client, open_session: OpenSession) -> None:
    session_id = open_session(history=readings(3))
    record = client.get(f"/v1/sessions/{session_id}/state").content
    following = readings(1, seed=1)[0]
    once = step(client, session_id, following)
    restored = client.put(f"/v1/sessions/{session_id}/state", content=record)
    assert (restored.status_code, restored.json()["step"]) == (200, 3)
    assert step(client, session_id, following, step=4) == once


def test_a_record_goes_on_in_another_service_with_another_redis(
    client: httpx.Client, open_session: OpenSession, session_id: str
) -> None:
    source = open_session(history=readings(7))
    record = client.get(f"/v1/sessions/{source}/state").content
    following = readings(3, seed=1)
    with (
        RedisServer() as redis,
        ConveyorServer(redis_url=redis.url) as other,
        httpx.Client(base_url=other.url) as there,
    ):
        assert there.put(f"/v1/sessions/{session_id}/state", content=record).status_code == 201
        continued = [step(there, session_id, row)["outputs"] for row in following]
    assert continued == [step(client, source, row)["outputs"] for row in following]


def test_services_on_one_redis_share_their_sessions(
    client: httpx.Client, redis: RedisServer, open_session: OpenSession
) -> None:
    session_id, alone = open_session(), open_session()
    with ConveyorServer(redis_url=redis.url) as other, httpx.Client(base_url=other.url) as there:
        answers = [step((client, there)[i % 2], session_id, row) for i, row in enumerate(readings(6))]
    assert [answer["step"] for answer in answers] == [1, 2, 3, 4, 5, 6]
    assert answers[-1]["outputs"] == step(client, alone, readings(6))["outputs"]
