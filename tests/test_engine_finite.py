"""The engine where a model has no finite answer: one step is refused, nobody else notices."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from service.adapters.metrics import PrometheusObserver
from service.adapters.model_repository import ModelRepository
from service.core.errors import (
    ConveyorError,
)
from service.core.session import Result, Timestep
from service.engine import Engine
from service.sessions import Sessions
from tests.adapters.graphs import accumulator, save
from tests.engines import CountingStore, key, outcomes


@pytest.fixture
async def summing(tmp_path: Path, store: CountingStore) -> AsyncIterator[tuple[Engine, Sessions]]:
    """An engine for a model that overflows when it is fed enough large numbers."""
    save(accumulator(gain=1e30), tmp_path, "sum")
    models = ModelRepository.load(tmp_path, max_batch=4)
    engine = Engine(store, models, PrometheusObserver())
    yield engine, Sessions(store, models, engine, default_ttl_s=60, max_ttl_s=600, max_history=100)
    await engine.close()


async def test_a_step_without_a_finite_answer_is_refused_alone(summing: tuple[Engine, Sessions]) -> None:
    engine, sessions = summing
    await sessions.create(key(), "sum")
    await sessions.create(key("other"), "sum")
    fine, huge = Timestep([1.0, 1.0]), Timestep([1e18, 1.0])
    futures = [engine.submit(key(), step) for step in (fine, fine, huge, fine)] + [engine.submit(key("other"), fine)]
    results = await asyncio.gather(*futures, return_exceptions=True)
    codes = [result.step if isinstance(result, Result) else getattr(result, "code", None) for result in results]
    assert codes == [1, 2, "non_finite_output", 3, 1]
    assert (await sessions.get(key())).step == 3


async def test_a_step_is_not_refused_for_a_state_that_is_no_more(
    summing: tuple[Engine, Sessions], store: CountingStore, tmp_path: Path
) -> None:
    engine, sessions = summing
    await sessions.create(key(), "sum")
    for _ in range(3):
        await engine.step(key(), Timestep([1e8, 1.0]))
    models = ModelRepository.load(tmp_path, max_batch=1)
    elsewhere = Engine(store, models, PrometheusObserver())
    await Sessions(store, models, elsewhere, default_ttl_s=60, max_ttl_s=600, max_history=9).reset(key())
    await elsewhere.close()
    assert (await engine.step(key(), Timestep([1e8, 1.0]))).step == 1


async def test_a_timestep_without_a_finite_answer_leaves_the_session_alone(engine: Engine, sessions: Sessions) -> None:
    """The largest readings that are believed give a finite answer or an error, and in no case a ruined state."""
    await sessions.create(key(), "hotspot")
    (result,) = await outcomes(engine, Timestep([1e18] * 8))
    state = np.frombuffer((await sessions.get(key())).state, np.float32)
    assert np.isfinite(state).all()
    assert isinstance(result, ConveyorError) or np.isfinite(result.outputs["hot_spot"]).all()  # type: ignore[union-attr]
