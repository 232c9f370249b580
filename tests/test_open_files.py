"""The limit of open files is raised to what the connections need. In processes of their own, as it is the process's."""

import json
import subprocess
import sys

import pytest

from service.open_files import BESIDE
from tests.servers import REPOSITORY, ConveyorCommand, RedisServer

PROGRAM = """
import json, resource, sys
from service.open_files import allow
connections, soft, hard = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(json.dumps([allow(connections), *resource.getrlimit(resource.RLIMIT_NOFILE)]))
"""


@pytest.mark.parametrize(
    ("connections", "limits", "room", "soft"),
    [
        pytest.param(1000, (1024, 4000), 1000, 1000 + BESIDE, id="raised as far as needed"),
        pytest.param(1000, (3000, 4000), 1000, 3000, id="high enough"),
        pytest.param(1000, (512, 1024), 1024 - BESIDE, 1024, id="raised as far as possible"),
        pytest.param(1000, (100, 200), 1, 200, id="hardly any"),
    ],
)
def test_the_limit(connections: int, limits: tuple[int, int], room: int, soft: int) -> None:
    command = [sys.executable, "-c", PROGRAM, *map(str, (connections, *limits))]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout) == [room, soft, limits[1]]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_service_under_a_low_limit_says_for_how_many_it_has_room(redis: RedisServer, workers: str) -> None:
    class Limited(ConveyorCommand):
        def _command(self) -> list[str]:
            return ["sh", "-c", 'ulimit -n 300 && exec "$@"', "sh", *super()._command()]

    with Limited("--workers", workers, redis_url=redis.url) as service:
        assert "fewer connections than settings allow" in service.output()
        assert f"max_connections={300 - BESIDE}" in service.output().replace(" ", "")
