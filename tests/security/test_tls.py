"""https:// and wss://: the way of a step through TLS, who is refused, and certificates that are renewed."""

import asyncio
import hashlib
import json
import signal
import socket
import ssl
import time
from pathlib import Path

import httpx
import msgspec
import pytest
from websockets.asyncio.client import connect as connect_async
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from service.tls import LOOK_EVERY_S
from tests.api.wire import readings, step, stream, stream_at
from tests.process import members_of
from tests.security.certificates import Authority, SecureServer
from tests.servers import REPOSITORY, ConveyorServer, RedisServer, wait_until
from tests.test_gateway import BINARY, Nginx

ROWS = readings(6)


def fingerprint(service: SecureServer) -> str:
    """What names the certificate that a new connection is shown."""
    with (
        socket.create_connection(("127.0.0.1", service.port), timeout=20) as plain,
        service.trusted.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        shown = secure.getpeercert(binary_form=True)
        assert shown
        return hashlib.sha256(shown).hexdigest()


async def over_tls_1_3(service: SecureServer, session_id: str) -> int:
    """Take a step on a WebSocket over the newest TLS; return its number."""
    url = f"{service.ws_url}/v1/sessions/{session_id}/stream"
    async with asyncio.timeout(20), connect_async(url, ssl=service.trusted) as opened:
        assert opened.transport.get_extra_info("ssl_object").version() == "TLSv1.3"
        await opened.recv()
        await opened.send(json.dumps({"x": ROWS[0]}))
        return int(json.loads(await opened.recv())["step"])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_step_over_every_wire(
    workers: int, redis: RedisServer, authority: Authority, certificate: Path, session_id: str
) -> None:
    with (
        SecureServer(
            redis_url=redis.url, workers=workers, tls_certificate=certificate, trusted=authority.trusted()
        ) as service,
        service.client() as client,
    ):
        assert wait_until(lambda: f"Conveyor listens on {service.url}\n" in service.output(), 20)
        client.put(f"/v1/sessions/{session_id}", json={"model": "hotspot"}).raise_for_status()
        assert step(client, session_id, ROWS[0], step=1)["step"] == 1
        with stream(service, session_id, ssl=authority.trusted_by_threads()) as socket_:
            assert socket_.receive()["step"] == 1
            assert socket_.ask({"x": ROWS[1], "step": 2})["step"] == 2
        packed = {"subprotocols": [Subprotocol("conveyor.v1.msgpack")]}
        with stream(service, session_id, ssl=authority.trusted_by_threads(), **packed) as socket_:
            socket_.socket.recv(timeout=20)
            socket_.send(msgspec.msgpack.encode({"x": ROWS[2], "step": 3}))
            answer = socket_.socket.recv(timeout=20)
            assert isinstance(answer, bytes)
            assert msgspec.msgpack.decode(answer)["step"] == 3
        # Larger than a TLS record (16 KiB), in and out.
        chunk = step(client, session_id, ROWS * 80, step=4, outputs="all")
        assert len(chunk["outputs"]["hot_spot"]) == len(ROWS) * 80
        assert asyncio.run(over_tls_1_3(service, session_id)) == 3 + len(ROWS) * 80 + 1
        assert "Traceback" not in service.output()


def test_a_client_that_does_not_read_is_waited_for_and_loses_nothing(
    redis: RedisServer, authority: Authority, certificate: Path, session_id: str
) -> None:
    count = 60
    with SecureServer(redis_url=redis.url, tls_certificate=certificate, trusted=authority.trusted()) as service:
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", service.port))
        with connect(
            f"{service.ws_url}/v1/sessions/{session_id}/stream?model=hotspot",
            sock=slow,
            ssl=authority.trusted_by_threads(),
            server_hostname="127.0.0.1",
            max_queue=1,
            max_size=None,
        ) as client:
            client.recv(timeout=20)
            message = json.dumps({"x": ROWS * 20, "outputs": "all"})
            for _ in range(count):
                client.send(message)
            with service.client() as other:  # an answer is 160 KB: what is written to the slow one does not pile up
                assert other.get("/healthz").status_code == 200
            steps = [json.loads(client.recv(timeout=60))["step"] for _ in range(count)]
    assert steps == [(number + 1) * len(ROWS) * 20 for number in range(count)]


@pytest.mark.parametrize("workers", [1, 2])
def test_told_to_stop_it_answers_what_it_has_and_says_goodbye(
    workers: int, authority: Authority, certificate: Path
) -> None:
    with (
        RedisServer() as redis,
        SecureServer(
            redis_url=redis.url, workers=workers, tls_certificate=certificate, trusted=authority.trusted()
        ) as service,
        stream_at(service, "/v1/sessions/a/stream?model=hotspot", ssl=authority.trusted_by_threads()) as one,
        socket.create_connection(("127.0.0.1", service.port)),  # one that never says hello holds nobody up
    ):
        one.receive()
        redis.signal(signal.SIGSTOP)
        one.send(*({"x": row} for row in ROWS))
        time.sleep(0.3)
        service.terminate()
        time.sleep(0.3)
        redis.signal(signal.SIGCONT)
        assert [one.receive()["step"] for _ in ROWS] == [1, 2, 3, 4, 5, 6]
        assert one.closed().code == 1012
        assert service.wait(15) in (0, -signal.SIGTERM)
        assert wait_until(lambda: members_of(service.pid) == [], 5)
        assert "Traceback" not in service.output()


def test_strangers_to_tls_are_refused_and_leave_no_traceback(authority: Authority, certificate: Path) -> None:
    with SecureServer(redis_url="memory://", tls_certificate=certificate, trusted=authority.trusted()) as service:
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{service.port}/healthz")
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{service.url}/healthz")
        old, known = authority.trusted(), authority.trusted()
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{service.url}/healthz", verify=old)
        known.maximum_version = ssl.TLSVersion.TLSv1_2
        assert httpx.get(f"{service.url}/healthz", verify=known).status_code == 200
        for junk in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"\x00" * 100, b"GET / HTTP/1.1\r\n\r\n", b""):
            with socket.create_connection(("127.0.0.1", service.port), timeout=20) as stranger:
                stranger.sendall(junk)
        with service.client() as client:
            assert client.get("/healthz").status_code == 200
        assert "Traceback" not in service.output()


def test_with_a_client_authority_only_its_clients_get_in(
    tmp_path: Path, authority: Authority, certificate: Path
) -> None:
    clients, strangers = Authority(tmp_path, "clients"), Authority(tmp_path, "strangers")
    shown = clients.issue("client")
    with SecureServer(
        redis_url="memory://",
        tls_certificate=certificate,
        tls_client_ca=clients.file,
        trusted=authority.trusted(shown),
    ) as service:
        for refused in (authority.trusted(), authority.trusted(strangers.issue("stranger"))):
            with pytest.raises(httpx.TransportError), httpx.Client(verify=refused) as client:
                client.get(f"{service.url}/healthz")
        with stream_at(
            service, "/v1/sessions/a/stream?model=hotspot", ssl=authority.trusted_by_threads(shown)
        ) as opened:
            assert opened.receive()["step"] == 0
        # Another authority from now on: who was known before is not any more.
        clients.file.write_bytes(strangers.file.read_bytes())
        time.sleep(LOOK_EVERY_S)
        with pytest.raises(httpx.TransportError), service.client() as client:
            client.get("/healthz")
        with httpx.Client(verify=authority.trusted(tmp_path / "stranger.pem")) as client:
            assert client.get(f"{service.url}/healthz").status_code == 200
        assert "Traceback" not in service.output()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_renewed_certificate_is_shown_without_a_restart(
    workers: int, redis: RedisServer, authority: Authority, certificate: Path, tmp_path: Path
) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes(certificate.read_bytes())
    with SecureServer(
        redis_url=redis.url,
        workers=workers,
        tls_certificate=certificate,
        tls_key=key,
        trusted=authority.trusted(),
    ) as service:
        first = fingerprint(service)
        with stream_at(service, "/v1/stream", ssl=authority.trusted_by_threads()) as opened:
            renewed = authority.issue("renewed", "127.0.0.1").read_bytes()
            certificate.write_bytes(renewed)  # the key is not there yet: in the middle of a renewal
            time.sleep(LOOK_EVERY_S)
            for _ in range(4 * workers):
                assert fingerprint(service) == first
            key.write_bytes(renewed)
            assert wait_until(lambda: fingerprint(service) != first, 20)
            time.sleep(LOOK_EVERY_S)
            assert len({fingerprint(service) for _ in range(4 * workers)} - {first}) == 1
            assert opened.ask([]) == []  # the connections that stand go on
        said = service.output()
    assert "cannot be used; the ones before stay" in said
    assert "is not that of the certificate" in said
    assert "the TLS certificate was renewed" in said
    assert "Traceback" not in said


@pytest.mark.skipif(not BINARY, reason="no nginx")
def test_the_gateways_example_serves_both_wires(
    redis: RedisServer, authority: Authority, certificate: Path, session_id: str
) -> None:
    example = (REPOSITORY / "docker/nginx/tls.conf").read_text()
    for name in ("server.pem", "server.key"):
        example = example.replace(f"/etc/nginx/tls/{name}", str(certificate))
    with ConveyorServer(redis_url=redis.url) as first, ConveyorServer(redis_url=redis.url) as second:
        nginx = Nginx(first.port, second.port)
        listening = f"listen 127.0.0.1:{nginx.port};"
        text = nginx.configuration.read_text()
        assert listening in text
        nginx.configuration.write_text(
            text.replace(listening, example.replace("listen 8443 ", f"listen 127.0.0.1:{nginx.port} "))
        )
        with nginx, httpx.Client(base_url=f"https://127.0.0.1:{nginx.port}", verify=authority.trusted()) as client:
            response = client.put(f"/v1/sessions/{session_id}", json={"model": "hotspot"})
            assert response.status_code == 201
            assert "strict-transport-security" in response.headers
            path = f"wss://127.0.0.1:{nginx.port}/v1/sessions/{session_id}/stream"
            with connect(path, ssl=authority.trusted_by_threads()) as opened:
                assert json.loads(opened.recv(timeout=20))["step"] == 0
