"""Timesteps of many sessions in one message: what becomes of each is what would have become of it by itself."""

import asyncio
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from service.adapters.metrics import PrometheusObserver
from service.adapters.model_repository import ModelRepository
from service.core.errors import ConveyorError, StoreUnavailable
from service.core.ports import Commit, Lost
from service.core.session import Result, SessionKey
from service.engine import Engine
from service.frame import Frame
from service.sessions import Sessions
from tests.adapters.graphs import accumulator, save
from tests.engines import CountingStore, X, ended, key, one

KEYS = [key(i) for i in range(8)]


def submitted(
    engine: Engine, keys: Sequence[SessionKey], numbers: Sequence[int] | None = None, *, shift: float = 0.0
) -> Frame:
    """Submit a frame in which each session's first number is larger by one than the one before."""
    x = np.array([[X[0] + i + shift, *X[1:]] for i in range(len(keys))])
    frame = engine.submit_frame(keys, x, np.array(numbers or [0] * len(keys), np.uint64))
    assert frame is not None
    return frame


def codes(outcomes: Sequence[Result | ConveyorError]) -> list[object]:
    return [outcome.step if isinstance(outcome, Result) else outcome.code for outcome in outcomes]


async def create(sessions: Sessions, keys: Sequence[SessionKey] = KEYS, model: str = "hotspot") -> None:
    for each in keys:
        await sessions.create(each, model)


async def test_a_frame_gives_the_bits_that_steps_give(engine: Engine, sessions: Sessions) -> None:
    apart = [key(f"apart-{i}") for i in range(len(KEYS))]
    await create(sessions, [*KEYS, *apart])
    for t in range(20):
        together = await ended(submitted(engine, KEYS, [t + 1] * len(KEYS), shift=t / 7))
        alone = await asyncio.gather(*(engine.step(each, one(t + 1, shift=i + t / 7)) for i, each in enumerate(apart)))
        for ours, theirs in zip(together, alone, strict=True):
            assert isinstance(ours, Result)
            assert (ours.step, ours.replayed) == (theirs.step, False) == (t + 1, False)
            np.testing.assert_array_equal(ours.outputs["hot_spot"], theirs.outputs["hot_spot"])
    for one_of, other in zip(KEYS, apart, strict=True):
        assert (await sessions.get(one_of)).state == (await sessions.get(other)).state


async def test_what_cannot_be_run_is_told_by_itself(engine: Engine, sessions: Sessions) -> None:
    await create(sessions, KEYS[:6])
    await ended(submitted(engine, KEYS[:6]))
    await ended(submitted(engine, KEYS[:6]))
    x = np.array([[X[0], *X[1:]]] * 8)
    x[1, 3] = np.nan
    frame = engine.submit_frame(KEYS, x, np.array([3, 0, 9, 1, 0, 3, 0, 1], np.uint64))
    assert frame is not None
    assert codes(await ended(frame)) == [
        3, "invalid_timestep", "step_gap", "step_conflict", 3, 3, "session_not_found", "session_not_found",
    ]  # fmt: skip
    replayed = await ended(submitted(engine, KEYS[:6], [3, 0, 0, 0, 3, 3]))
    assert codes(replayed) == [3, 3, 3, 3, 3, 3]
    assert [outcome.replayed for outcome in replayed if isinstance(outcome, Result)] == [True, *[False] * 3, True, True]


@pytest.mark.parametrize("width", [1, 7, 9])
async def test_a_width_that_is_not_the_models_is_refused(engine: Engine, sessions: Sessions, width: int) -> None:
    await create(sessions)
    frame = engine.submit_frame(KEYS, np.ones((8, width)), np.zeros(8, np.uint64))
    assert frame is not None
    assert codes(await ended(frame)) == ["invalid_timestep"] * 8
    assert all([(await sessions.get(each)).step == 0 for each in KEYS])


async def test_frames_and_steps_of_a_session_keep_their_order(
    engine: Engine, sessions: Sessions, store: CountingStore
) -> None:
    await create(sessions)
    await ended(submitted(engine, KEYS))
    store.gate.clear()
    first = submitted(engine, KEYS, [2] * 8)
    await store.arrived.wait()
    second = submitted(engine, KEYS[2:6], [3] * 4)
    between = engine.submit(KEYS[3], one(4))
    third = submitted(engine, KEYS[3:], [5, 4, 4, 3, 3])
    store.gate.set()
    assert codes(await ended(first)) == [2] * 8
    assert codes(await ended(second)) == [3] * 4
    assert (await between).step == 4
    assert codes(await ended(third)) == [5, 4, 4, 3, 3]


async def test_another_writer_is_noticed_in_the_midst_of_a_frame(
    engine: Engine, sessions: Sessions, store: CountingStore, models: ModelRepository
) -> None:
    elsewhere = Engine(store, models, PrometheusObserver())
    await create(sessions)
    await ended(submitted(engine, KEYS))
    for each in KEYS[3:5]:
        await elsewhere.step(each, one(2))
    await sessions.delete(KEYS[6])
    outcomes = await ended(submitted(engine, KEYS))
    assert codes(outcomes) == [2, 2, 2, 3, 3, 2, "session_not_found", 2]
    await elsewhere.close()


async def test_one_row_without_a_finite_answer_is_refused_alone(tmp_path: Path, store: CountingStore) -> None:
    save(accumulator(gain=1e30), tmp_path, "sum")
    models = ModelRepository.load(tmp_path, max_batch=8)
    engine = Engine(store, models, PrometheusObserver())
    sessions = Sessions(store, models, engine, default_ttl_s=60, max_ttl_s=600, max_history=100)
    await create(sessions, model="sum")
    for step, large in ((1, 1.0), (2, 1e18)):
        x = np.ones((8, 2))
        x[5] = large
        frame = engine.submit_frame(KEYS, x, np.zeros(8, np.uint64))
        assert frame is not None
        expected: list[object] = [step] * 8
        if large > 1:
            expected[5] = "non_finite_output"
        assert codes(await ended(frame)) == expected
    assert (await sessions.get(KEYS[5])).step == 1
    await engine.close()


async def test_models_of_one_width_share_a_frame(store: CountingStore, tmp_path: Path) -> None:
    save(accumulator(), tmp_path, "sum")
    save(accumulator(gain=2.0), tmp_path, "twice")
    models = ModelRepository.load(tmp_path, max_batch=16)
    engine = Engine(store, models, PrometheusObserver())
    sessions = Sessions(store, models, engine, default_ttl_s=60, max_ttl_s=600, max_history=100)
    keys = [key(i) for i in range(16)]
    await create(sessions, keys[::2], "sum")
    await create(sessions, keys[1::2], "twice")
    for step in (1, 2):
        frame = engine.submit_frame(keys, np.ones((16, 2)), np.zeros(16, np.uint64))
        assert frame is not None
        outcomes = await ended(frame)
        assert codes(outcomes) == [step] * 16
    sums = [each.outputs["total"].tolist() for each in outcomes if isinstance(each, Result)]
    assert sums == [[2.0, 2.0], [4.0, 4.0]] * 8
    await engine.close()


async def test_sessions_that_are_read_go_side_by_side(store: CountingStore, models: ModelRepository) -> None:
    """After a restart nothing is remembered: one read for all, and a broken record is one session's."""
    first, then = (Engine(store, models, PrometheusObserver(), max_batch=8) for _ in range(2))
    await create(Sessions(store, models, first, default_ttl_s=60, max_ttl_s=600, max_history=100))
    for _ in range(2):
        await ended(submitted(first, KEYS))
    await first.close()
    assert codes(await ended(submitted(then, KEYS[:1]))) == [3]  # from here on, the model's layout is known
    await tamper(store, KEYS[5], lambda record: record[:-4] + np.float32(np.nan).tobytes())
    await tamper(store, KEYS[7], lambda record: record[:50] + struct.pack("<I", 9999) + record[54:])  # of a length
    await store.delete(KEYS[6])
    store.loads.clear()
    outcomes = await ended(submitted(then, KEYS, [3, 3, 4, 3, 2, 3, 3, 3]))
    assert codes(outcomes) == [3, 3, "step_gap", 3, 2, "invalid_record", "session_not_found", "invalid_record"]
    replayed = [outcome.replayed for outcome in outcomes if isinstance(outcome, Result)]
    assert replayed == [True, False, False, True]
    assert store.loads == [8]
    await then.close()


async def tamper(store: CountingStore, key: SessionKey, change: Callable[[bytes], bytes]) -> None:
    (record,) = await store.load([key])
    assert isinstance(record, bytes)
    await store.delete(key)
    await store.create(key, change(record))


class Breaking(CountingStore):
    """Of the commits it is sent, the first one that holds `victim` meets a defect, and all others take a while."""

    victim: SessionKey | None = None

    async def commit(self, commits: Sequence[Commit]) -> list[Lost | ConveyorError | None]:
        if self.victim in [commit.key for commit in commits]:
            self.victim = None
            raise ZeroDivisionError
        await asyncio.sleep(0.05)
        return await super().commit(commits)


async def test_a_defect_in_one_write_leaves_the_others_to_end(tmp_path: Path) -> None:
    save(accumulator(), tmp_path, "sum")
    save(accumulator(gain=2.0), tmp_path, "twice")
    models = ModelRepository.load(tmp_path, max_batch=16)
    store = Breaking()
    engine = Engine(store, models, PrometheusObserver())
    sessions = Sessions(store, models, engine, default_ttl_s=60, max_ttl_s=600, max_history=100)
    keys = [key(i) for i in range(16)]
    await create(sessions, keys[::2], "sum")
    await create(sessions, keys[1::2], "twice")
    for victim in (None, keys[3]):
        for each in keys:
            engine.forget(each)  # so that both models' sessions are read together
        store.victim = victim
        frame = engine.submit_frame(keys, np.ones((16, 2)), np.zeros(16, np.uint64))
        assert frame is not None
        outcomes = await ended(frame)
    assert codes(outcomes) == [2, "internal_error"] * 8
    assert [(await sessions.get(each)).step for each in keys] == [2, 1] * 8
    await engine.close()


async def test_a_store_that_fails_is_told_to_all_and_nothing_advances(
    engine: Engine, sessions: Sessions, store: CountingStore
) -> None:
    await create(sessions)
    await ended(submitted(engine, KEYS))
    store.failure = StoreUnavailable("the store is away")
    assert codes(await ended(submitted(engine, KEYS))) == ["store_unavailable"] * 8
    store.failure = None
    assert codes(await ended(submitted(engine, KEYS, [2] * 8))) == [2] * 8


async def test_a_defect_ends_every_timestep(engine: Engine, sessions: Sessions, store: CountingStore) -> None:
    await create(sessions)
    await ended(submitted(engine, KEYS))
    store.failure = ZeroDivisionError()
    assert codes(await ended(submitted(engine, KEYS))) == ["internal_error"] * 8


async def test_who_waits_too_long_is_told(sessions: Sessions, store: CountingStore, models: ModelRepository) -> None:
    now = 0.0
    engine = Engine(store, models, PrometheusObserver(), max_batch=8, clock=lambda: now)
    await create(sessions)
    store.gate.clear()
    first = submitted(engine, KEYS)
    await store.arrived.wait()
    second = submitted(engine, KEYS)
    now = 60.0
    store.gate.set()
    assert codes(await ended(first)) == [1] * 8
    assert codes(await ended(second)) == ["deadline_exceeded"] * 8
    await engine.close()


async def test_the_end_of_the_service_ends_frames(engine: Engine, sessions: Sessions, store: CountingStore) -> None:
    await create(sessions)
    store.gate.clear()
    first = submitted(engine, KEYS)
    await store.arrived.wait()
    second = submitted(engine, KEYS)
    await engine.close(timeout_s=0.05)
    assert codes(await ended(first)) == ["outcome_unknown"] * 8
    assert codes(await ended(second)) == ["shutting_down"] * 8


async def test_a_frame_for_which_there_is_no_room_is_not_taken(
    sessions: Sessions, store: CountingStore, models: ModelRepository
) -> None:
    engine = Engine(store, models, PrometheusObserver(), max_batch=4, max_queue=12)
    await create(sessions)
    frame = submitted(engine, KEYS)
    assert engine.submit_frame(KEYS, np.ones((8, len(X))), np.zeros(8, np.uint64)) is None
    assert codes(await ended(frame)) == [1] * 8
    await engine.close()
