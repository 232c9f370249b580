"""No key and no token is written down anywhere: not in logs at any level, not in errors, not in the documentation."""

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from tests.api.wire import readings, stream, stream_at
from tests.security.credentials import ALL, AUDIENCE, ISSUER, Issuer, KeyRing, bearer
from tests.servers import ConveyorServer, RedisServer, wait_until

ROW = readings(1)[0]


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_whole_run_with_all_that_can_be_logged_shows_no_secret(
    redis: RedisServer, tmp_path: Path, log_format: str
) -> None:
    ring, issuer = KeyRing(tmp_path / "keys.json"), Issuer("ES256")
    key, revoked, expired = ring.add("a", *ALL), ring.add("a", *ALL), ring.add("a", *ALL, expires_in_s=-1)
    token, late = issuer.token(*ALL), issuer.token(*ALL, lasts_s=-100)
    foreign = issuer.token(*ALL, tenant="a:b")
    credentials = [key, revoked, expired, token, late, foreign, "a-password-sent-by-mistake", key + "x", token + "x"]
    service = ConveyorServer(
        "--access-log",
        redis_url=redis.url,
        api_keys=ring.path,
        jwt_keys=issuer.publish(tmp_path / "issuer.json"),
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        log_level="debug",
        log_format=log_format,
    )
    answers: list[str] = []
    with service, httpx.Client(base_url=service.url, timeout=30) as client:

        def ask(method: str, path: str, headers: dict[str, str], **options: object) -> int:
            response = client.request(method, path, headers=headers, **options)  # type: ignore[arg-type]
            answers.append(f"{response.headers} {response.text}")
            return response.status_code

        for credential in credentials:
            headers = bearer(credential)
            ask("PUT", "/v1/sessions/s", headers, json={"model": "hotspot"})
            ask("POST", "/v1/sessions/s/steps", headers, json={"x": ROW})
            ask("POST", "/v1/sessions/s/steps", headers, content=b"{")
            ask("PUT", "/v1/sessions/s/state", headers, content=b"no record")
            ask("DELETE", "/nothing/here", {"authorization": f"Basic {credential}"})
            ask("GET", "/metrics", headers)
            ask("GET", "/readyz", headers)
            for path in ("/v1/sessions/s/stream", "/v1/stream"):
                with stream_at(service, path, additional_headers=headers) as socket:
                    with suppress(ConnectionClosed):  # a socket that is refused is closed at once
                        socket.send("{", {"session_id": "s", "x": ROW}, {"x": ROW})
                    answers.append(socket.receive())
        with stream(service, "s", additional_headers=bearer(revoked)) as socket:
            answers.append(socket.receive())
            ring.remove(revoked)
            answers += socket.receive_until_closed()
        ring.path.write_text(ring.path.read_text()[:-10])
        assert wait_until(lambda: "is not a file of API keys" in service.output(), 30)
        for path in ("/docs", "/openapi.json"):
            ask("GET", path, bearer(key))
    written = service.output() + json.dumps(answers)
    assert "/v1/sessions/s/steps" in service.output(), "the log is empty: nothing was looked at"
    # The public part of a key may be seen; of a token there is none.
    secrets = {
        name.split("_", 2)[2] if name.startswith("cvy_") else name.partition(".")[2] or name for name in credentials
    }
    secrets |= {name.rpartition(".")[2] for name in credentials if "." in name}
    assert all(len(secret) > 20 for secret in secrets)
    assert [secret for secret in secrets if secret in written] == []


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_traceback_shows_no_variables(log_format: str) -> None:
    program = f"""
import logging
from service import logs
logs.configure("debug", "{log_format}")
def known(credential):
    raise ValueError("a defect")
try:
    known("a-" + "secret")
except ValueError:
    logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert "a defect" in run.stderr
    assert "a-secret" not in run.stderr
