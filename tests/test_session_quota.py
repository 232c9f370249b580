"""The quota of sessions: who gets a place, before anything is computed; `test_session_counting.py` has what counts."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.adapters.metrics import PrometheusObserver
from service.adapters.model_repository import ModelRepository
from service.core.columns import Floats
from service.core.errors import (
    ConveyorError,
    InvalidRequest,
    InvalidTimestep,
    QuotaExceeded,
    SessionExists,
)
from service.core.ports import Model
from service.core.session import SessionKey
from service.engine import Engine
from service.sessions import Sessions
from tests.engines import CountingStore, key, opened


async def test_every_way_to_one_more_session_is_closed(limited: Sessions) -> None:
    await opened(limited, "a", "b", "c")
    content = await limited.export(key("a"))
    for attempt in (
        limited.open(key("d"), "hotspot"),
        limited.create(key("d"), "hotspot"),
        limited.fork(key("a"), key("d")),
        limited.restore(key("d"), content),
    ):
        with pytest.raises(
            QuotaExceeded, match="3 sessions are allowed, and there are as many: delete some"
        ) as refused:
            await attempt
        assert refused.value.fields == {"limit": 3}
    await limited.open(SessionKey("another", "d"), "hotspot")


async def test_what_is_no_new_session_is_as_it_was(limited: Sessions) -> None:
    await opened(limited, "a", "b", "c")
    assert not (await limited.open(key("a"), "hotspot")).created
    assert not (await limited.restore(key("b"), await limited.export(key("a")))).created
    await limited.reset(key("c"))
    with pytest.raises(SessionExists):
        await limited.create(key("a"), "hotspot")


async def test_a_deleted_session_makes_room_at_once(limited: Sessions) -> None:
    await opened(limited, "a", "b", "c")
    for name in "defgh":
        await limited.delete(key(chr(ord(name) - 3)))
        await opened(limited, name)
        with pytest.raises(QuotaExceeded):
            await opened(limited, "one-more")


async def test_sessions_of_before_the_limit_can_be_used_and_replaced(limited: Sessions, sessions: Sessions) -> None:
    await opened(sessions, "before")
    content = await sessions.export(key("before"))
    await opened(limited, "a", "b", "c")
    assert not (await limited.open(key("before"), "hotspot")).created
    with pytest.raises(SessionExists):
        await limited.create(key("before"), "hotspot")
    assert not (await limited.restore(key("before"), content)).created
    with pytest.raises(QuotaExceeded):
        await opened(limited, "d")


HISTORY = [[0.5] * 8] * 50


class CountingEngine(Engine):
    """Counts the timesteps of each run, and makes it when its gate is open."""

    def __init__(self, store: CountingStore, models: ModelRepository) -> None:
        super().__init__(store, models, PrometheusObserver(), max_batch=8, max_queue=600)
        self.runs: list[int] = []
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def run(self, model: Model, x: Floats, state: Floats) -> tuple[Floats, Floats]:
        self.runs.append(x.shape[1])
        self.begun.set()
        await self.gate.wait()
        return await super().run(model, x, state)


@pytest.fixture
async def engine(store: CountingStore, models: ModelRepository) -> AsyncIterator[CountingEngine]:
    engine = CountingEngine(store, models)
    yield engine
    await engine.close()


async def test_who_has_no_place_left_has_nothing_computed(limited: Sessions, engine: CountingEngine) -> None:
    await opened(limited, "a", "b", "c")
    for attempt in (limited.open, limited.create):
        with pytest.raises(QuotaExceeded):
            await attempt(key("d"), "hotspot", history=HISTORY)
    assert engine.runs == []
    await limited.delete(key("a"))
    ends = await asyncio.gather(
        *(limited.create(key(f"d{i}"), "hotspot", history=HISTORY) for i in range(10)), return_exceptions=True
    )
    assert sum(isinstance(end, QuotaExceeded) for end in ends) == 9
    assert engine.runs == [50], "of ten that ask at once for the last place, one is primed"


@pytest.mark.parametrize(
    ("history", "error"),
    [
        ([], InvalidRequest),
        ([[0.5] * 8] * 101, InvalidRequest),
        ([[0.5] * 3], InvalidTimestep),
    ],
)
async def test_a_history_that_cannot_be_used_takes_no_place(
    limited: Sessions, history: list[list[float]], error: type[ConveyorError]
) -> None:
    await opened(limited, "a", "b")
    for attempt in (limited.open, limited.create):
        with pytest.raises(error):
            await attempt(key("failed"), "hotspot", history=history)
    await opened(limited, "c")
    with pytest.raises(QuotaExceeded):
        await opened(limited, "d")


async def test_who_leaves_while_a_session_is_primed_leaves_the_place(limited: Sessions, engine: CountingEngine) -> None:
    engine.gate.clear()
    leaving = asyncio.create_task(limited.open(key("left"), "hotspot", history=HISTORY))
    await asyncio.wait_for(engine.begun.wait(), 20)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await opened(limited, "a", "b", "c")
