"""Where what is kept beside sessions may be: in the process, or in each Redis of this machine."""

from collections.abc import Iterator

import pytest

from tests.servers import RedisServer, redis_binaries

REDISES = dict(redis_binaries())


@pytest.fixture(scope="module", params=["memory", *REDISES])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "memory":
        yield "memory://"
    else:
        with RedisServer(REDISES[request.param], unix=True) as redis:
            yield redis.unix_url
