"""Fixtures of the private redis-server's tests."""

from pathlib import Path

import pytest

from tests.servers import redis_binaries

BINARIES = redis_binaries()


@pytest.fixture(params=[path for _, path in BINARIES], ids=[label for label, _ in BINARIES])
def binary(request: pytest.FixtureRequest) -> Path:
    """Each redis-server of this machine in turn."""
    return Path(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder that does not exist yet."""
    return tmp_path / "data"
