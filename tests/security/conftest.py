"""One service that asks who asks, by keys and by tokens, shared by the tests that leave it running."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.core.access import Scope
from tests.security.certificates import Authority
from tests.security.credentials import AUDIENCE, ISSUER, Issuer, KeyRing
from tests.servers import ConveyorServer, RedisServer


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    return Issuer("ES256", "RS256", "ES384")


@pytest.fixture(scope="session")
def ring(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    """Keys of the shared service. Those of a test's own making are good within `service.authentication.WATCH_S`."""
    return KeyRing(tmp_path_factory.mktemp("keys") / "keys.json")


@pytest.fixture(scope="session")
def keys(ring: KeyRing) -> dict[str, str]:
    """Keys that are good from the start: of tenants with names that could be confused, and with one scope each."""
    names = ("a", "a-b", "ab", "a.", "~", "A")
    made = {tenant: ring.add(tenant, Scope.STEP, Scope.SESSIONS, Scope.MODELS) for tenant in names}
    made |= {scope.value: ring.add("a", scope) for scope in Scope}
    return made | {"expired": ring.add("a", *Scope, expires_in_s=-1), "none": ring.add("a")}


@pytest.fixture(scope="session")
def guarded(
    redis: RedisServer, ring: KeyRing, keys: dict[str, str], issuer: Issuer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ConveyorServer]:
    assert keys
    key_set: Path = issuer.publish(tmp_path_factory.mktemp("issuer") / "keys.json")
    with ConveyorServer(
        redis_url=redis.url,
        api_keys=ring.path,
        jwt_keys=key_set,
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        jwt_algorithms="ES256, RS256",
    ) as server:
        yield server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def certificate(authority: Authority) -> Path:
    return authority.issue("server", "127.0.0.1", "localhost")
