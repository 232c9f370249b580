"""One real redis-server and one real service with the demo model, shared by all tests that leave them running.

The demo model is ``hotspot``: 8 features in, the output ``hot_spot`` (24 hours by 3 quantiles) out. A test that stops,
kills or floods a server starts its own, see `tests.servers`. Sessions are told apart by their ids: `session_id` is a
fresh one, `open_session` opens as many as a test wants.
"""

import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator

import httpx
import pytest

from service.adapters.memory_places import MemoryPlaces
from service.adapters.metrics import PrometheusObserver
from service.adapters.model_repository import ModelRepository
from service.engine import Engine
from service.quotas import Quota
from service.sessions import Sessions
from tests import budget as budget  # the profiles of property tests
from tests.clock import Time
from tests.engines import MODELS, CountingStore
from tests.servers import ConveyorCommand, ConveyorServer, RedisServer

OpenSession = Callable[..., str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse two tests of one id: of these, `pytest -n` would run the first alone, and say nothing.

    Raises:
        pytest.UsageError: There are such.
    """
    twice = [node_id for node_id, count in Counter(item.nodeid for item in items).items() if count > 1]
    if twice:
        raise pytest.UsageError(f"an id has to be one test's alone: {', '.join(twice)}")


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def service(redis: RedisServer) -> Iterator[ConveyorServer]:
    with ConveyorCommand(redis_url=redis.url) as server:
        yield server


@pytest.fixture(scope="session")
def client(service: ConveyorServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=30) as client:
        yield client


@pytest.fixture
def session_id() -> str:
    """An id that no session has."""
    return f"test-{uuid.uuid4()}"


@pytest.fixture
def open_session(client: httpx.Client) -> OpenSession:
    """Opens a session of the demo model, and returns its id: ``open_session(history=[…], ttl_s=60)``."""

    def open_(**fields: object) -> str:
        response = client.post("/v1/sessions", json={"model": "hotspot", **fields})
        assert response.status_code == 201, response.text
        return str(response.json()["session_id"])

    return open_


@pytest.fixture(scope="module")
def models() -> ModelRepository:
    return ModelRepository.load(MODELS, max_batch=8)


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
async def engine(store: CountingStore, models: ModelRepository) -> AsyncIterator[Engine]:
    engine = Engine(store, models, PrometheusObserver(), max_batch=8, max_queue=600)
    yield engine
    store.gate.set()
    store.failure = None
    await engine.close()


@pytest.fixture
def sessions(store: CountingStore, models: ModelRepository, engine: Engine) -> Sessions:
    return Sessions(store, models, engine, default_ttl_s=60, max_ttl_s=600, max_history=100)


@pytest.fixture
def time() -> Time:
    """The clock of `places`."""
    return Time()


@pytest.fixture
def places(time: Time) -> MemoryPlaces:
    return MemoryPlaces(time)


@pytest.fixture
def limited(store: CountingStore, models: ModelRepository, engine: Engine, places: MemoryPlaces) -> Sessions:
    """Sessions of which each tenant may have three."""
    quota = Quota(3, places, store)
    return Sessions(store, models, engine, default_ttl_s=60, max_ttl_s=86_400, max_history=100, quota=quota)
