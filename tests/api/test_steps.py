"""Timesteps over HTTP: what an answer holds, what a step's number does, how many sessions travel in one call."""

import httpx
import pytest

from tests.api.wire import FEATURES, readings, require_problem, step, step_count
from tests.conftest import OpenSession

HORIZON, QUANTILES = 24, 3


def test_an_answer_holds_the_outputs_in_the_shape_that_the_model_declares(
    client: httpx.Client, open_session: OpenSession
) -> None:
    session_id = open_session()
    answer = step(client, session_id, readings(1)[0])
    forecast = answer.pop("outputs")["hot_spot"]
    assert answer == {"session_id": session_id, "step": 1, "replayed": False}
    assert (len(forecast), {len(quantiles) for quantiles in forecast}) == (HORIZON, {QUANTILES})
    assert all(type(value) is float for quantiles in forecast for value in quantiles)


def test_readings_by_name_are_readings_in_order(client: httpx.Client, open_session: OpenSession) -> None:
    row = readings(1)[0]
    by_name = dict(reversed(list(zip(FEATURES, row, strict=True))))
    assert step(client, open_session(), by_name)["outputs"] == step(client, open_session(), row)["outputs"]


def test_whole_numbers_are_numbers(client: httpx.Client, open_session: OpenSession) -> None:
    whole = list(range(8))
    assert (
        step(client, open_session(), whole)["outputs"] == step(client, open_session(), [*map(float, whole)])["outputs"]
    )


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 512])
def test_a_chunk_is_its_timesteps_one_after_another(
    client: httpx.Client, open_session: OpenSession, length: int
) -> None:
    rows = readings(length, seed=length)
    single, chunked = open_session(), open_session()
    one_by_one = [step(client, single, row)["outputs"]["hot_spot"] for row in rows[-200:]] if length <= 200 else None
    answer = step(client, chunked, rows, outputs="all")
    assert (answer["step"], len(answer["outputs"]["hot_spot"])) == (length, length)
    if one_by_one is not None:
        assert answer["outputs"]["hot_spot"] == one_by_one
    following = readings(1, seed=1)[0]
    primed = open_session(history=rows)
    assert step(client, chunked, following)["outputs"] == step(client, primed, following)["outputs"]


def test_of_a_chunk_the_last_outputs_are_answered_unless_all_are_asked_for(
    client: httpx.Client, open_session: OpenSession
) -> None:
    rows = readings(5)
    everything = step(client, open_session(), rows, outputs="all")["outputs"]["hot_spot"]
    assert step(client, open_session(), rows)["outputs"]["hot_spot"] == everything[-1]
    assert step(client, open_session(), rows[0], outputs="all")["outputs"]["hot_spot"] == everything[:1]


def test_a_step_sent_again_gets_the_stored_answer(client: httpx.Client, open_session: OpenSession) -> None:
    session_id = open_session()
    rows = readings(2)
    step(client, session_id, rows[0], step=1)
    applied = step(client, session_id, rows[1], step=2)
    assert applied["replayed"] is False
    assert step(client, session_id, rows[1], step=2) == applied | {"replayed": True}
    assert step_count(client, session_id) == 2


def test_a_chunk_is_numbered_by_its_first_timestep(client: httpx.Client, open_session: OpenSession) -> None:
    session_id = open_session()
    applied = step(client, session_id, readings(4), step=1)
    assert applied["step"] == 4
    assert step(client, session_id, readings(4), step=1) == applied | {"replayed": True}
    every = {"x": readings(4), "step": 1, "outputs": "all"}
    refused = client.post(f"/v1/sessions/{session_id}/steps", json=every)
    require_problem(refused, 409, "replay_unavailable", "only the outputs of its last timestep are kept")
    assert refused.json()["current_step"] == 4


@pytest.mark.parametrize(
    ("number", "length", "status", "outcome"),
    [
        (6, 1, 200, "applied"),
        (5, 1, 200, "replayed"),
        (4, 1, 409, "step_conflict"),
        (1, 1, 409, "step_conflict"),
        (7, 1, 409, "step_gap"),
        (2**53 - 1, 1, 409, "step_gap"),
        (6, 3, 200, "applied"),
        (3, 3, 200, "replayed"),
        (1, 3, 409, "step_conflict"),
        (4, 3, 409, "step_conflict"),
        (7, 3, 409, "step_gap"),
    ],
)
def test_a_number_says_whether_a_step_is_next(
    client: httpx.Client, open_session: OpenSession, number: int, length: int, status: int, outcome: str
) -> None:
    session_id = open_session(history=readings(5))
    rows = readings(length, seed=1)
    x = rows if length > 1 else rows[0]
    response = client.post(f"/v1/sessions/{session_id}/steps", json={"x": x, "step": number})
    if status == 409:
        require_problem(response, 409, outcome, f"step {number}", "the next is 6")
        assert response.json()["current_step"] == 5
    else:
        assert response.status_code == 200, response.text
        assert response.json()["replayed"] is (outcome == "replayed")
    assert step_count(client, session_id) == (5 + length if outcome == "applied" else 5)


def test_many_steps_are_answered_in_their_order_each_for_itself(
    client: httpx.Client, open_session: OpenSession, session_id: str
) -> None:
    first, second = open_session(), open_session()
    rows = readings(3)
    steps = [
        {"session_id": second, "x": rows[0]},
        {"session_id": first, "x": rows[0], "step": 1},
        {"session_id": session_id, "x": rows[0]},
        {"session_id": first, "x": rows[1:], "outputs": "all"},
        {"session_id": second, "x": rows[1], "step": 9},
        {"session_id": second, "x": [1.0]},
    ]
    results = client.post("/v1/steps", json={"steps": steps}).json()["results"]
    assert [result["session_id"] for result in results] == [item["session_id"] for item in steps]
    outcomes = [result["error"]["code"] if "error" in result else result["step"] for result in results]
    assert outcomes == [1, 1, "session_not_found", 3, "step_gap", "invalid_timestep"]
    assert results[0]["outputs"] == results[1]["outputs"]
    alone = open_session()
    assert [step(client, alone, row)["outputs"] for row in rows][-1]["hot_spot"] == results[3]["outputs"]["hot_spot"][
        -1
    ]


def test_no_steps_get_no_results(client: httpx.Client) -> None:
    assert client.post("/v1/steps", json={"steps": []}).json() == {"results": []}


def test_a_thousand_steps_fit_into_one_call(client: httpx.Client, open_session: OpenSession) -> None:
    sessions = [open_session(ttl_s=60) for _ in range(32)]
    steps = [{"session_id": session_id, "x": row} for row in readings(32) for session_id in sessions]
    results = client.post("/v1/steps", json={"steps": steps}).json()["results"]
    assert [result["step"] for result in results] == [count for count in range(1, 33) for _ in sessions]
    assert all(result["outputs"] == results[-1]["outputs"] for result in results[-32:])
