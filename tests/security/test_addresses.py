"""Nobody is served unasked on an address that others can reach, unless that was said in so many words."""

import httpx
import pytest

from tests.e2e.command import conveyor
from tests.security.credentials import ALL, KeyRing, bearer
from tests.servers import ConveyorServer, RedisServer, free_port

REACHABLE = ("0.0.0.0", "::", "")


@pytest.mark.parametrize(("host", "workers"), [*((host, 1) for host in REACHABLE), (REACHABLE[0], 2)])
def test_an_address_that_others_reach_is_refused_without_keys_or_tokens(host: str, workers: int) -> None:
    done = conveyor("serve", "--port", "0", "--redis-url", "memory://", "--workers", workers, host=host)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for fragment in ("can be reached by others", "CONVEYOR_API_KEYS", "CONVEYOR_JWT_KEYS", "--allow-anybody"):
        assert fragment in done.stderr


class Elsewhere(ConveyorServer):
    """A service that listens on all addresses of this machine."""

    def _arguments(self) -> list[str]:
        return [word if word != "127.0.0.1" else "0.0.0.0" for word in super()._arguments()]


@pytest.mark.parametrize("allowed", [("--allow-anybody",), {"allow_anybody": "true"}])
def test_it_is_served_where_that_was_said(redis: RedisServer, allowed: tuple[str] | dict[str, str]) -> None:
    arguments, settings = (allowed, {}) if isinstance(allowed, tuple) else ((), allowed)
    with Elsewhere(*arguments, redis_url=redis.url, **settings) as service:
        assert httpx.get(service.url + "/v1/models").status_code == 200


def test_it_is_served_where_who_asks_has_to_say_who_they_are(redis: RedisServer, ring: KeyRing) -> None:
    key = ring.add("a", *ALL)
    with Elsewhere(redis_url=redis.url, api_keys=ring.path) as service:
        assert httpx.get(service.url + "/v1/models").status_code == 401
        assert httpx.get(service.url + "/v1/models", headers=bearer(key)).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "::1"])
def test_this_machine_alone_is_served_unasked(redis: RedisServer, host: str) -> None:
    port = free_port()

    class Here(ConveyorServer):
        def _arguments(self) -> list[str]:
            return [word if word != "127.0.0.1" else host for word in super()._arguments()]

        def is_ready(self) -> bool:
            return "Conveyor listens on" in self.output()

    with Here(redis_url=redis.url, port=port) as service:
        name = f"[{host}]" if ":" in host else host
        assert httpx.get(f"http://{name}:{port}/v1/models").status_code == 200
        assert service.running
