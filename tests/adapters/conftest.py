"""What the tests of several adapters start from."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.redis_clusters import ClusterDeployment
from tests.servers import RedisServer, redis_binaries

BINARIES = redis_binaries()


@pytest.fixture(params=[path for _, path in BINARIES], ids=[label for label, _ in BINARIES])
def binary(request: pytest.FixtureRequest) -> Path:
    """Each redis-server of this machine in turn."""
    return Path(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder that does not exist yet."""
    return tmp_path / "data"


@pytest.fixture(params=BINARIES, ids=lambda found: found[0])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server of each redis-server of this machine, in turn."""
    with RedisServer(request.param[1]) as server:
        yield server


@pytest.fixture
def cluster(deployment: ClusterDeployment) -> ClusterDeployment:
    """A test file's own deployment, whole again."""
    deployment.restore()
    return deployment
