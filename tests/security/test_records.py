"""What a client says in a record that it uploads: what is taken over is checked, the rest is drawn anew."""

import struct
import time
from typing import Any

import httpx
import numpy as np
import pytest

from service.core import record
from service.core.session import Session
from tests.api.wire import readings, require_problem, step, step_count
from tests.conftest import OpenSession


def exported(client: httpx.Client, session_id: str) -> Session:
    return record.decode(client.get(f"/v1/sessions/{session_id}/state").content)


def upload(client: httpx.Client, session_id: str, session: Session) -> httpx.Response:
    return client.put(f"/v1/sessions/{session_id}/state", content=record.encode(session))


def test_a_record_cannot_take_the_identity_of_another_session(
    client: httpx.Client, open_session: OpenSession, session_id: str
) -> None:
    victim = exported(client, open_session(history=readings(2)))
    forged = victim._replace(nonce=1, updated_at_ms=2**63)
    assert upload(client, session_id, forged).status_code == 201
    kept = exported(client, session_id)
    assert kept.epoch != victim.epoch
    assert kept.nonce not in (1, victim.nonce)
    assert abs(kept.updated_at_ms / 1000 - time.time()) < 60
    assert (kept.model, kept.step, kept.state, kept.outputs) == (victim.model, 2, victim.state, victim.outputs)


def test_a_session_that_is_replaced_by_a_record_has_another_epoch(
    client: httpx.Client, open_session: OpenSession
) -> None:
    session_id = open_session(history=readings(2))
    before = exported(client, session_id)
    step(client, session_id, readings(1)[0])
    assert upload(client, session_id, before).status_code == 200
    assert exported(client, session_id).epoch != before.epoch
    assert step(client, session_id, readings(1)[0], step=3)["replayed"] is False


REFUSED: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "a step without room to count on": ({"step": 2**52 + 1}, 422, "invalid_record", "is beyond 4503599627370496"),
    "the largest step": ({"step": 2**64 - 1}, 422, "invalid_record", "is beyond"),
    "a ttl beyond the limit": ({"ttl_s": 2**32 - 1}, 422, "invalid_request", "1 to 31536000"),
    "no ttl": ({"ttl_s": 0}, 422, "invalid_request", "1 to 31536000"),
    "a state too short": ({"state": bytes(4)}, 422, "invalid_record", "state has 4 bytes"),
    "no outputs": ({"outputs": b""}, 422, "invalid_record", "outputs has 0 bytes"),
    "infinity in the state": ({"state": struct.pack("<256f", *[np.inf] * 256)}, 422, "invalid_record", "not finite"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_session_can_be_is_refused_and_replaces_nothing(
    client: httpx.Client, open_session: OpenSession, what: str
) -> None:
    fields, status, code, says = REFUSED[what]
    session_id = open_session(history=readings(2))
    before = exported(client, session_id)
    require_problem(upload(client, session_id, before._replace(**fields)), status, code, says)
    assert exported(client, session_id) == before


def test_the_largest_step_that_is_believed_can_be_counted_on_from(
    client: httpx.Client, open_session: OpenSession
) -> None:
    session_id = open_session(history=readings(2))
    assert upload(client, session_id, exported(client, session_id)._replace(step=2**52)).status_code == 200
    assert step(client, session_id, readings(1)[0], step=2**52 + 1)["step"] == 2**52 + 1


@pytest.mark.parametrize("magnitude", [3.4e38, 1e-45], ids=["huge", "subnormal"])
def test_a_state_of_any_magnitude_harms_nobody_else(
    client: httpx.Client, open_session: OpenSession, magnitude: float
) -> None:
    poisoned, neighbour, alone = (open_session(history=readings(2)) for _ in range(3))
    session = exported(client, poisoned)
    state = np.full(len(session.state) // 4, magnitude, np.float32).tobytes()
    assert upload(client, poisoned, session._replace(state=state)).status_code == 200
    row = readings(1, seed=1)[0]
    sent = {"steps": [{"session_id": id_, "x": row} for id_ in (poisoned, neighbour)]}
    first, second = client.post("/v1/steps", json=sent).json()["results"]
    assert second["outputs"] == step(client, alone, row)["outputs"]
    if "error" in first:
        assert first["error"]["code"] == "non_finite_output"
        assert step_count(client, poisoned) == 2
    else:
        assert np.isfinite(np.array(first["outputs"]["hot_spot"])).all()
