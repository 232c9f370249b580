"""API keys: made by a command, kept as hashes, changed under a running service, refused once they are no good."""

import hashlib
import json
import os
import re
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
from websockets.exceptions import ConnectionClosed

from service.adapters.api_keys import ApiKeys
from service.adapters.key_file import KeyFileError
from service.core.access import Scope
from service.core.errors import Unauthenticated
from tests.api.wire import readings, require_problem, require_problem_body, stream
from tests.e2e.command import conveyor
from tests.security.credentials import ALL, KeyRing, bearer
from tests.servers import ConveyorServer, RedisServer, wait_until

ROW = readings(1)[0]
NOTICED_WITHIN_S = 30.0
"""A second or two by what is promised; the rest is patience with the machine."""


def status(service: ConveyorServer, key: str) -> int:
    return httpx.get(service.url + "/v1/models", headers=bearer(key), timeout=30).status_code


BAD_CREDENTIALS: dict[str, tuple[list[tuple[str, str]], str]] = {
    "nothing": ([], "Authorization"),
    "another scheme": ([("authorization", "Basic YTpi")], "Bearer"),
    "no key": ([("authorization", "Bearer")], "Bearer"),
    "the key alone": ([("authorization", "{key}")], "Bearer"),
    "the key twice": ([("authorization", "Bearer {key}"), ("authorization", "Bearer {key}")], "more than once"),
    "another secret": ([("authorization", "Bearer {key}x")], "not known"),
    "no secret": ([("authorization", "Bearer {public}")], "not known"),
    "an empty secret": ([("authorization", "Bearer {public}_")], "not known"),
    "an id that nobody has": ([("authorization", "Bearer cvy_0123456789abcdef_{secret}")], "not known"),
    "the id of another": ([("authorization", "Bearer {other}_{secret}")], "not known"),
    "the stored hash": ([("authorization", "Bearer {public}_{hash}")], "not known"),
    "no id": ([("authorization", "Bearer cvy_")], "not known"),
    "bytes that are no text": ([("authorization", "Bearer cvy_\xff\xfe")], "not known"),
    "a key that has expired": ([("authorization", "Bearer {expired}")], "expired"),
    "a key in the query": ([], "Authorization"),
}


@pytest.mark.parametrize("case", BAD_CREDENTIALS)
def test_a_key_that_is_not_one_is_refused(guarded: ConveyorServer, keys: dict[str, str], case: str) -> None:
    headers, fragment = BAD_CREDENTIALS[case]
    key = keys["a"]
    parts = {
        "key": key,
        "public": key[:20],
        "secret": key[21:],
        "other": keys["ab"][:20],
        "hash": hashlib.sha256(key[21:].encode()).hexdigest(),
        "expired": keys["expired"],
    }
    sent = [(name.encode(), value.format(**parts).encode("latin-1")) for name, value in headers]
    response = httpx.get(f"{guarded.url}/v1/models?api_key={key}&access_token={key}", headers=sent)
    require_problem(response, 401, "unauthenticated", fragment)
    assert response.headers["www-authenticate"] == 'Bearer realm="conveyor"'
    assert key[21:] not in response.text


def test_the_printed_line_works_when_pasted_with_a_key(guarded: ConveyorServer, keys: dict[str, str]) -> None:
    (line,) = re.findall(r"^curl .*$", guarded.output(), re.MULTILINE)
    done = subprocess.run(["bash", "-c", line], env={**os.environ, "KEY": keys["~"]}, capture_output=True, check=True)
    assert json.loads(done.stdout)["step"] >= 1
    done = subprocess.run(["bash", "-c", line], env={**os.environ, "KEY": "none"}, capture_output=True, check=True)
    assert json.loads(done.stdout)["code"] == "unauthenticated"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_name_of_the_scheme_may_be_written_in_any_case(
    guarded: ConveyorServer, keys: dict[str, str], scheme: str
) -> None:
    headers = {"authorization": f"{scheme} {keys['a']}"}
    assert httpx.get(guarded.url + "/v1/models", headers=headers).status_code == 200


def test_keys_change_under_all_workers_of_all_replicas_and_nobody_restarts(redis: RedisServer, tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "keys.json")
    old = ring.add("a", *ALL)
    with (
        ConveyorServer("--workers", "2", redis_url=redis.url, api_keys=ring.path) as one,
        ConveyorServer(redis_url=redis.url, api_keys=ring.path) as two,
    ):

        def everywhere(key: str, expected: int) -> bool:
            # Each request over a connection of its own: the kernel gives it to either worker.
            return all(status(service, key) == expected for service in (one, two) for _ in range(8))

        assert everywhere(old, 200)
        new = ring.add("a", *ALL)
        assert wait_until(lambda: everywhere(new, 200), NOTICED_WITHIN_S, every_s=0.2)
        assert everywhere(old, 200)
        ring.remove(old)
        assert wait_until(lambda: everywhere(old, 401), NOTICED_WITHIN_S, every_s=0.2)
        assert everywhere(new, 200)


def test_a_file_that_is_broken_or_gone_leaves_the_keys_as_they_are(redis: RedisServer, tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "keys.json")
    key = ring.add("a", *ALL)
    good = ring.path.read_text()
    with ConveyorServer(redis_url=redis.url, api_keys=ring.path) as service:

        def told(fragment: str) -> bool:
            return wait_until(lambda: fragment in service.output(), NOTICED_WITHIN_S)

        ring.path.write_text(good[: len(good) // 2])
        assert told("is not a file of API keys")
        assert status(service, key) == 200
        ring.path.unlink()
        assert told("No such file")
        assert status(service, key) == 200
        time.sleep(2.5)  # a few more looks at it
        assert service.output().count("the API keys stay as they were") == 2, "told of each change once"
        KeyRing(ring.path)
        assert wait_until(lambda: status(service, key) == 401, NOTICED_WITHIN_S)


def test_a_socket_is_closed_when_its_key_is_revoked_or_expires_and_not_before(
    redis: RedisServer, tmp_path: Path
) -> None:
    ring = KeyRing(tmp_path / "keys.json")
    kept, revoked = ring.add("a", *ALL), ring.add("a", *ALL)
    with ConveyorServer(redis_url=redis.url, api_keys=ring.path) as service:
        expiring = ring.add("a", *ALL, expires_in_s=8)
        assert wait_until(lambda: status(service, expiring) == 200, 6)
        with (
            stream(service, "kept", "?model=hotspot", additional_headers=bearer(kept)) as staying,
            stream(service, "revoked", "?model=hotspot", additional_headers=bearer(revoked)) as leaving,
            stream(service, "expiring", "?model=hotspot", additional_headers=bearer(expiring)) as ending,
        ):
            for opened in (staying, leaving, ending):
                assert opened.receive()["step"] == 0
                assert opened.ask({"x": ROW})["step"] == 1
            ring.remove(revoked)
            for opened in (leaving, ending):
                require_problem_body(opened.receive()["error"], 401, "unauthenticated", "no longer good")
                closed = opened.closed()
                assert (closed.code, closed.reason) == (1008, "unauthenticated")
            assert staying.ask({"x": ROW})["step"] == 2


def test_who_does_not_read_that_it_is_dismissed_is_cut_off(redis: RedisServer, tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "keys.json")
    key = ring.add("a", *ALL)
    chunk = {"x": readings(500), "outputs": "all"}
    with ConveyorServer(redis_url=redis.url, api_keys=ring.path) as service, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", service.port))
        ours = connection.getsockname()[1]

        def connected() -> bool:
            return any(held.raddr and held.raddr.port == ours for held in psutil.Process(service.pid).net_connections())

        def send() -> None:
            with suppress(ConnectionClosed):
                unread.send(*[chunk] * 30)

        options = {"additional_headers": bearer(key), "sock": connection, "max_queue": 1, "ping_interval": None}
        with stream(service, "unread", "?model=hotspot", **options) as unread:
            sending = threading.Thread(target=send)
            sending.start()
            assert unread.receive()["step"] == 0
            time.sleep(1)  # more answers than the connection holds
            ring.remove(key)
            assert connected()
            assert wait_until(lambda: not connected(), NOTICED_WITHIN_S, every_s=0.2)
            connection.shutdown(socket.SHUT_RDWR)
            sending.join()


def test_a_service_does_not_start_without_the_file_that_it_is_told_of(tmp_path: Path) -> None:
    done = conveyor("serve", "--port", "0", "--redis-url", "memory://", "--api-keys", tmp_path / "absent.json")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert f"there is no file of API keys at {tmp_path}/absent.json. Make it with conveyor keys create" in done.stderr


KEY = {"id": "0123456789abcdef", "sha256": "0" * 64, "tenant": "a", "name": "n", "scopes": ["step"]}
KEY |= {"created_at": "2026-01-01T00:00:00Z"}
UNUSABLE = {
    "no JSON": ("keys", "JSON is malformed"),
    "half a file": ('{"keys": [{"id"', "Input data was truncated"),
    "a field that nobody knows": ({"keys": [KEY | {"scope": "step"}]}, "unknown field `scope`"),
    "a scope that nobody knows": ({"keys": [KEY | {"scopes": ["all"]}]}, "Invalid enum value 'all'"),
    "a tenant that could be another's": ({"keys": [KEY | {"tenant": "a:b"}]}, "`$.keys[0].tenant`"),
    "a tenant with a line's end": ({"keys": [KEY | {"tenant": "a\n"}]}, "`$.keys[0].tenant`"),
    "a hash that is none": ({"keys": [KEY | {"sha256": "0"}]}, "`$.keys[0].sha256`"),
    "a time without a zone": ({"keys": [KEY | {"expires_at": "2026-01-01T00:00:00"}]}, "`$.keys[0].expires_at`"),
    "an id twice": ({"keys": [KEY, KEY]}, "has the id '0123456789abcdef' twice"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_file_that_cannot_be_used_is_refused_with_the_place(case: str, tmp_path: Path) -> None:
    content, fragment = UNUSABLE[case]
    path = tmp_path / "keys.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(KeyFileError, match="is not a file of API keys") as error:
        ApiKeys(path)
    assert fragment in str(error.value)


def test_a_key_is_good_until_the_very_moment_it_expires(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "keys.json")
    key = ring.add("a", Scope.STEP, expires_in_s=60).encode()
    now = time.time()
    keys = ApiKeys(ring.path, clock=lambda: now)
    principal = keys.known(key)
    assert principal.expires_at is not None
    now = principal.expires_at - 0.001
    assert keys.known(key) == principal
    assert keys.holds(principal)
    now = principal.expires_at
    assert not keys.holds(principal)
    with pytest.raises(Unauthenticated, match="expired"):
        keys.known(key)


async def test_a_key_whose_scopes_change_holds_no_longer_for_who_is_connected(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "keys.json")
    key = ring.add("a", Scope.STEP)
    keys = ApiKeys(ring.path)
    principal = keys.known(key.encode())
    ring.path.write_text(ring.path.read_text().replace('"step"', '"metrics"'))
    await keys.refresh()
    assert not keys.holds(principal)
    assert keys.known(key.encode()).scopes == {Scope.METRICS}


def test_a_file_without_keys_lets_nobody_in(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "keys.json")
    keys = ApiKeys(ring.path)
    for credential in (b"cvy_", b"cvy__", b"cvy_" + b"0" * 16 + b"_", b"", b"cvy"):
        with pytest.raises(Unauthenticated):
            keys.known(credential)
    with pytest.raises(KeyFileError):
        ApiKeys(tmp_path / "absent")
