"""Liveness, readiness and metrics, as orchestrators and dashboards see them."""

import httpx

from tests.api.wire import readings, step
from tests.conftest import OpenSession
from tests.servers import ConveyorServer, RedisServer, wait_until

METRICS = {
    "conveyor_timesteps_total",
    "conveyor_batch_sessions_bucket",
    "conveyor_stage_seconds_bucket",
    "conveyor_cache_hits_total",
    "conveyor_cache_misses_total",
    "conveyor_replays_total",
    "conveyor_conflicts_total",
    "conveyor_refusals_total",
}


def metrics(client: httpx.Client) -> dict[str, float]:
    """Return the value of every series."""
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    lines = [line for line in response.text.splitlines() if not line.startswith("#")]
    return {series: float(value) for series, _, value in (line.rpartition(" ") for line in lines)}


def test_a_process_that_answers_is_alive(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}


def test_readiness_names_the_store_the_models_and_what_to_mend(client: httpx.Client, redis: RedisServer) -> None:
    response = client.get("/readyz")
    ready = response.json()
    assert response.status_code == 200
    assert redis.url in ready.pop("store")
    (warning,) = ready.pop("warnings")
    assert "Set appendonly yes" in warning
    assert ready == {"ready": True, "models": ["hotspot/1"], "failed_models": []}


def test_without_its_store_a_service_is_alive_and_not_ready() -> None:
    with (
        RedisServer(appendonly="yes", maxmemory_policy="allkeys-lru") as redis,
        ConveyorServer(redis_url=redis.url) as service,
        httpx.Client(base_url=service.url) as client,
    ):
        (warning,) = client.get("/readyz").json()["warnings"]
        assert "maxmemory-policy noeviction" in warning
        redis.kill()
        response = client.get("/readyz")
        assert (response.status_code, response.json()["ready"]) == (503, False)
        assert "Redis" in response.json()["store"]
        assert client.get("/healthz").status_code == 200
        redis.start()
        assert wait_until(service.is_ready, 5, 0.1)


def test_metrics_count_what_was_done(client: httpx.Client, open_session: OpenSession) -> None:
    session_id = open_session()
    before = metrics(client)
    row = readings(1)[0]
    step(client, session_id, row, step=1)
    step(client, session_id, row, step=1)
    step(client, session_id, readings(4))
    client.post(f"/v1/sessions/{session_id}/steps", json={"x": [1]})
    after = metrics(client)
    assert {series.partition("{")[0] for series in after} >= METRICS
    grown = {series: after[series] - before.get(series, 0) for series in after}
    expected = {
        'conveyor_timesteps_total{model="hotspot",version="1"}': 5,
        'conveyor_batch_sessions_count{model="hotspot",version="1"}': 2,
        "conveyor_replays_total": 1,
        "conveyor_conflicts_total": 0,
        'conveyor_refusals_total{code="invalid_timestep"}': 1,
        'conveyor_stage_seconds_count{stage="commit"}': 2,
        'conveyor_stage_seconds_count{stage="run"}': 2,
    }
    assert {series: grown[series] for series in expected} == expected


def test_the_documentation_is_served(client: httpx.Client) -> None:
    assert "Conveyor" in client.get("/docs").text
    assert client.get("/openapi.json").json()["info"]["title"] == "Conveyor"
