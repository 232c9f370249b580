"""A store that can be made to fail is a store like any other as long as it does not: the contract's suite once more."""

from collections.abc import AsyncIterator

import pytest

from service.adapters.memory_store import MemoryStore
from service.core.ports import StateStore
from tests.contracts.test_store import *  # noqa: F403
from tests.faulty_store import FaultyStore


@pytest.fixture(scope="module")
def url() -> str:
    return "memory://"


@pytest.fixture
async def store() -> AsyncIterator[StateStore]:
    store: StateStore = FaultyStore(MemoryStore())
    yield store
    await store.close()
