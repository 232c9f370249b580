"""What is about to be written is announced to the store: when that is of use, and only then."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from service.adapters.metrics import PrometheusObserver
from service.adapters.model_repository import ModelRepository
from service.core.errors import ConveyorError
from service.core.ports import Commit, Lost
from service.core.session import SessionKey
from service.engine import Engine
from service.prefetch import FEWEST, MANY, Prefetch
from service.sessions import Sessions
from tests.adapters.graphs import accumulator, save
from tests.engines import CountingStore, ended, key

KEYS = [key(i) for i in range(2 * FEWEST)]


class Watched(CountingStore):
    """Keeps in `told` what it is told, one after the other: "prefetch" or "commit", and of which sessions."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, list[SessionKey]]] = []

    def prefetch(self, keys: Sequence[SessionKey]) -> None:
        self.told.append(("prefetch", list(keys)))

    async def commit(self, commits: Sequence[Commit]) -> list[Lost | ConveyorError | None]:
        self.told.append(("commit", [commit.key for commit in commits]))
        return await super().commit(commits)


@pytest.fixture
def store() -> Watched:
    return Watched()


async def test_an_idle_store_is_told_of_a_crowd_among_many(store: Watched) -> None:
    prefetch = Prefetch(store, range(MANY))
    assert prefetch.announce(KEYS)
    assert store.told == [("prefetch", KEYS)]


@pytest.mark.parametrize(("remembered", "announced"), [(MANY - 1, FEWEST), (MANY, FEWEST - 1), (0, 0)])
async def test_it_is_told_of_nothing_else(store: Watched, remembered: int, announced: int) -> None:
    assert not Prefetch(store, range(remembered)).announce(KEYS[:announced])
    assert not store.told


async def test_a_store_that_is_writing_is_told_nothing(store: Watched) -> None:
    prefetch = Prefetch(store, range(MANY))
    with prefetch:
        with prefetch:
            pass
        assert not prefetch.announce(KEYS)
    assert prefetch.announce(KEYS)


async def test_the_engine_announces_what_it_runs(
    store: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.prefetch.MANY", len(KEYS))
    save(accumulator(), tmp_path, "sum")
    models = ModelRepository.load(tmp_path, max_batch=len(KEYS))
    engine = Engine(store, models, PrometheusObserver())
    sessions = Sessions(store, models, engine, default_ttl_s=60, max_ttl_s=600, max_history=100)
    for each in KEYS:
        await sessions.create(each, "sum")
    told_of = []
    for step in range(1, 4):
        frame = engine.submit_frame(KEYS, np.ones((len(KEYS), 2)), np.zeros(len(KEYS), np.uint64))
        assert frame is not None
        for outcome in await ended(frame):
            assert not isinstance(outcome, ConveyorError)
            assert (outcome.step, outcome.outputs["total"].tolist()) == (step, [step, step])
        told_of.append(store.told.copy())
        store.told.clear()
    assert told_of[1:] == [[("prefetch", KEYS), ("commit", KEYS)]] * 2
    await engine.close()
