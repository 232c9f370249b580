"""The password of a Redis, or of a key, is written nowhere: not in logs, errors, answers or process lists."""

from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from service.adapters.redis_url import shown
from service.settings import Settings
from tests.api.wire import readings, stream_at
from tests.e2e.command import conveyor
from tests.process import members_of, redis_servers_in
from tests.servers import ConveyorCommand, RedisServer, free_port, redis_command

SECRET = "s3cret"
ROW = readings(1)[0]

BAD_URLS = {
    "a scheme that is none": "http://conveyor:s3cret@127.0.0.1:{port}/0",
    "no scheme": "conveyor:s3cret@127.0.0.1:{port}/0",
    "two schemes": "redis://redis://conveyor:s3cret@127.0.0.1:{port}/0",
    "a password with a slash": "redis://conveyor:x/s3cret@127.0.0.1:{port}/0",
    "a password that reads as a port": "redis://conveyor:s3cret/x@127.0.0.1:{port}/0",
    "a password with a question mark": "redis://conveyor:x?s3cret@127.0.0.1:{port}/0",
    "a password with an at": "redis://conveyor:x@s3cret@127.0.0.1:{port}/0",
    "a password with a hash": "redis://conveyor:x#s3cret@127.0.0.1:{port}/0",
    "a password with brackets": "redis://conveyor:[s3cret@127.0.0.1:{port}/0",
    "a password that is no plain text": "redis://conveyor:s3cret℀@127.0.0.1:{port}/0",
    "no port number": "redis://conveyor:s3cret@127.0.0.1:x/0",
    "a port beyond all": "redis://conveyor:s3cret@127.0.0.1:70000/0",
    "an option that is none": "redis://127.0.0.1:{port}/0?passwort=s3cret",
    "an option with a bad value": "redis://127.0.0.1:{port}/0?db=s3cret&socket_timeout=s3cret",
    "a password that is refused": "redis://conveyor:s3cret@127.0.0.1:{port}/0",
    "a password as an option that is refused": "redis://127.0.0.1:{port}/0?username=conveyor&password=s3cret",
    "a password as an option with an at": "redis://127.0.0.1:{port}/0?username=conveyor&password=x@s3cret",
    "nobody there": "redis://conveyor:s3cret@127.0.0.1:{free}/0",
    "a host that is none": "redis://conveyor:s3cret@nowhere.invalid:{port}/0",
    "no socket": "unix://conveyor:s3cret@/nowhere/redis.sock",
    "TLS where there is none": "rediss://conveyor:s3cret@127.0.0.1:{port}/0?ssl_password=s3cret",
    "a key that is not there": "rediss://127.0.0.1:{port}/0?ssl_keyfile=/nowhere&ssl_password=s3cret",
}


SERVED = ("a scheme that is none", "a password with a slash", "a password that is refused")
"""With which the service itself is started, too; it opens its store as the other command does."""


@pytest.mark.parametrize("name", BAD_URLS)
def test_what_is_wrong_with_a_url_is_said_without_its_password(name: str, redis: RedisServer, tmp_path: Path) -> None:
    url = BAD_URLS[name].format(port=redis.port, free=free_port())
    serving = (["serve", "--port", "0"], ["serve", "--port", "0", "--workers", "2"])
    for command in (["sessions", "list"], *(serving if name in SERVED else ())):
        done = conveyor(*command, redis_url=url, log_level="debug", store_timeout_s=0.5, data_dir=tmp_path)
        said = done.stdout + done.stderr
        assert done.returncode not in (0, None), said
        assert "Traceback" not in said
        assert SECRET not in said
        assert "CONVEYOR_REDIS_URL" in said or "Redis" in said


@pytest.mark.parametrize("log_format", ["console", "json"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_logs_all_it_can_shows_no_password(log_format: str, workers: int) -> None:
    with RedisServer(appendonly="yes") as redis:
        redis_command(redis.url, "ACL", "SETUSER", "conveyor", "on", ">s3cret", "~*", "+@all")
        service = ConveyorCommand(
            redis_url=redis.url.replace("://", "://conveyor:s3cret@"),
            workers=workers,
            log_level="debug",
            log_format=log_format,
            access_log="true",
            store_timeout_s=0.5,
        )
        answers = []
        with service, httpx.Client(base_url=service.url, timeout=30) as client:
            paths = ("/readyz", "/docs", "/openapi.json", "/metrics", "/v1/sessions", "/nothing")
            answers += [client.get(path).text for path in paths]
            with stream_at(service, "/v1/sessions/a/stream?model=hotspot") as socket:
                socket.receive()
                answers.append(str(socket.ask({"x": ROW})))
            commands = [Path(f"/proc/{pid}/cmdline").read_text() for pid in members_of(service.pid)]
            # From now on the password is another one.
            redis_command(redis.url, "ACL", "SETUSER", "conveyor", "resetpass", ">other")
            redis_command(redis.url, "CLIENT", "KILL", "USER", "conveyor")
            answers += [client.get("/readyz").text, client.post("/v1/sessions/a/steps", json={"x": ROW}).text]
            redis.kill()
            answers += [client.get("/readyz").text, client.post("/v1/sessions/a/steps", json={"x": ROW}).text]
        said = service.output()
    assert any("Redis refused the service's credentials" in answer for answer in answers)
    assert len(commands) >= workers
    assert "/v1/sessions/a/stream" in said, "the log is empty: nothing was looked at"
    assert [text for text in (*answers, *commands, said) if SECRET in text] == []


def test_the_private_redis_server_has_nothing_to_hide_on_its_command_line(tmp_path: Path) -> None:
    with ConveyorCommand(data_dir=tmp_path) as service:
        (server,) = redis_servers_in(tmp_path)
        assert not {"requirepass", "masterauth"} & set(Path(f"/proc/{server}/cmdline").read_text().split("\0"))
        assert (tmp_path / "redis.sock").stat().st_mode & 0o777 == 0o700
        assert service.running


def test_settings_show_no_secret() -> None:
    settings = Settings(redis_url="redis://:s3cret@h", tls_certificate=Path("c"), tls_key_password=SECRET)  # type: ignore[arg-type]
    assert SECRET not in f"{settings!r} {settings}"
    with pytest.raises(ValidationError) as refused:
        Settings(redis_url=["redis://:s3cret@h"], tls_key_password=[SECRET])  # type: ignore[arg-type]
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://u:p@h:1/0?ssl_password=p", "redis://***@h:1/0"),
        ("rediss://h?password=a@b", "rediss://***"),
        ("redis://u:p@ss@h/0", "redis://***@h/0"),
        ("unix:///run/redis.sock?password=p", "unix:///run/redis.sock"),
        ("u:p@h", "***@h"),
    ],
)
def test_a_url_is_shown_without_what_is_secret(url: str, expected: str) -> None:
    assert shown(url) == expected
