"""The engine where its sessions are stepped elsewhere, too: it reads them first, until they stay again."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from service.adapters.metrics import PrometheusObserver
from service.adapters.model_repository import ModelRepository
from service.core.session import Result
from service.engine import Engine
from service.sessions import Sessions
from tests.engines import CountingStore, key, one

NOTICED = 250
"""Steps of an engine that are more than enough to end its trust in what it remembers."""


def more_than_enough(count: int) -> int:
    """Return steps, of so many sessions side by side, that bring it back: where there are many, a few are compared."""
    return 600 if count < 8 else 4800


class Watcher(PrometheusObserver):
    def __init__(self) -> None:
        super().__init__()
        self.conflicts = 0

    def conflict(self) -> None:
        self.conflicts += 1


class Replica:
    """An engine on a store that others use, too, and what it costs them."""

    def __init__(self, store: CountingStore, models: ModelRepository) -> None:
        self._store = store
        self._watcher = Watcher()
        self.engine = Engine(store, models, self._watcher)
        self.loaded = 0

    @property
    def conflicts(self) -> int:
        return self._watcher.conflicts

    async def step(self, names: list[str], number: int) -> list[Result]:
        """Advance sessions side by side, to step `number`; were it sent, it would tell a record that is out of date."""
        before = sum(self._store.loads)
        steps = [self.engine.submit(key(name), one(shift=number / 7 + i)) for i, name in enumerate(names)]
        results = await asyncio.gather(*steps)
        self.loaded += sum(self._store.loads) - before
        assert [result.step for result in results] == [number] * len(names)
        assert not any(result.replayed for result in results)
        return results


@pytest.fixture
async def replicas(store: CountingStore, models: ModelRepository) -> AsyncIterator[list[Replica]]:
    replicas = [Replica(store, models) for _ in range(3)]
    yield replicas
    for replica in replicas:
        await replica.engine.close()


async def created(replica: Replica, store: CountingStore, models: ModelRepository, *names: list[str]) -> None:
    sessions = Sessions(store, models, replica.engine, default_ttl_s=60, max_ttl_s=600, max_history=100)
    for name in [name for some in names for name in some]:
        await sessions.create(key(name), "hotspot")


@pytest.mark.parametrize("count", [1, 3, 120])
async def test_who_wanders_is_read_first_until_he_stays(
    replicas: list[Replica], store: CountingStore, models: ModelRepository, count: int
) -> None:
    one_of_two, other, alone = replicas
    wandering, staying = [f"wandering-{i}" for i in range(count)], [f"staying-{i}" for i in range(count)]
    await created(alone, store, models, wandering, staying)
    number = 0

    async def rounds(steps: int, *turns: Replica) -> None:
        """Step those who wander by one replica after the other, and the others, all by the same, just so."""
        nonlocal number
        for _ in range(-(-steps // count)):
            for replica in turns:
                number += 1
                for mine, same in zip(
                    await replica.step(wandering, number), await alone.step(staying, number), strict=True
                ):
                    np.testing.assert_array_equal(mine.outputs["hot_spot"], same.outputs["hot_spot"])

    await rounds(NOTICED, one_of_two, other)
    for replica in (one_of_two, other):
        assert 100 <= replica.conflicts <= 200
    conflicts, loaded = one_of_two.conflicts, one_of_two.loaded
    before = number
    await rounds(more_than_enough(count), one_of_two, other)
    assert one_of_two.conflicts == conflicts, "nothing is run on what is out of date"
    assert one_of_two.loaded - loaded == (number - before) // 2 * count, "each is read once"

    await rounds(more_than_enough(count), one_of_two)
    loaded, commits = one_of_two.loaded, len(store.commits)
    await rounds(100, one_of_two)
    assert one_of_two.loaded == loaded, "trust is back"
    assert one_of_two.conflicts == conflicts
    assert len(store.commits) > commits

    assert (alone.conflicts, alone.loaded) == (0, count), "who had no rival read them once"


@pytest.mark.parametrize("count", [1, 3, 40])
async def test_a_rival_now_and_then_changes_nothing(
    replicas: list[Replica], store: CountingStore, models: ModelRepository, count: int
) -> None:
    at_home, elsewhere, _ = replicas
    names = [str(i) for i in range(count)]
    await created(at_home, store, models, names)
    for number in range(1, 400):
        await (elsewhere if number % 10 == 0 else at_home).step(names, number)
    assert at_home.loaded == count, "each was read once"
    assert at_home.conflicts == 39 * count
