"""A service to be mistreated, and the witness that it bears it.

After each test the service answers its health check, a well-behaved session gets the very bits that it got before
anything happened, and the log has neither a traceback nor a server error in it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from schemathesis.pytest.plugin import SchemathesisFunction

from tests.api.wire import readings
from tests.servers import ConveyorServer, RedisServer

SESSIONS = ("a", "b", "c")
_DEFECT = re.compile(r"Traceback|\[(error|critical) *\]|HTTP/1\.1\" 5\d\d")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Tell the tests of one function, one for each operation of the document, apart.

    pytest 9.2 makes an id of the function's name and the parameters that it was called with itself; schemathesis
    (4.32) has the operation in the test's name alone.
    """
    if isinstance(item, SchemathesisFunction) and item.id.params is None:
        item._id = item.id.with_params(item.operation_label)


@dataclass
class Witness:
    """A client that behaves."""

    service: ConveyorServer
    client: httpx.Client
    expected: list[Any] = field(default_factory=list)

    def outputs(self) -> list[Any]:
        """Open a session, send it a few steps, close it; return what was forecast."""
        self.client.delete("/v1/sessions/witness")
        assert self.client.put("/v1/sessions/witness", json={"model": "hotspot"}).status_code == 201
        messages = [{"x": row, "step": number} for number, row in enumerate(readings(4, seed=9), start=1)]
        answers = [self.client.post("/v1/sessions/witness/steps", json=message) for message in messages]
        return [answer.json()["outputs"] for answer in answers]

    def require_unharmed(self) -> None:
        assert self.service.running
        assert self.client.get("/healthz").status_code == 200
        assert self.client.get("/readyz").status_code == 200
        assert self.outputs() == self.expected
        log = self.service.output()
        defect = _DEFECT.search(log)
        assert defect is None, log[max(0, defect.start() - 500) : defect.start() + 4000]


@pytest.fixture(scope="session")
def witness() -> Iterator[Witness]:
    with RedisServer() as redis, ConveyorServer("--access-log", redis_url=redis.url) as service:
        with httpx.Client(base_url=service.url, timeout=30) as client:
            witness = Witness(service, client)
            witness.expected = witness.outputs()
            yield witness


@pytest.fixture
def fuzzed(witness: Witness) -> Iterator[ConveyorServer]:
    """The service, with sessions `SESSIONS` at step 3."""
    for name in SESSIONS:
        witness.client.delete(f"/v1/sessions/{name}")
        witness.client.put(f"/v1/sessions/{name}", json={"model": "hotspot", "history": readings(3)})
    yield witness.service
    witness.require_unharmed()
