"""What a client is to be sent is made while the step is being written, and told when it is."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import numpy as np
import pytest

from service.adapters.metrics import PrometheusObserver
from service.adapters.model_repository import ModelRepository
from service.core.session import Result, SessionKey
from service.engine import Engine
from service.frame import Answers
from service.sessions import Sessions
from tests.engines import CountingStore, X, chunk, key, one


@pytest.fixture
async def engine(store: CountingStore, models: ModelRepository) -> AsyncIterator[Engine]:
    engine = Engine(store, models, PrometheusObserver(), max_batch=256)
    yield engine
    await engine.close()


class Rendered:
    """Counts what it was given to make an answer of."""

    def __init__(self) -> None:
        self.results: list[Result] = []

    def __call__(self, result: Result) -> bytes:
        self.results.append(result)
        return self.answer(result)

    @staticmethod
    def answer(result: Result) -> bytes:
        return b"step %d: %b" % (result.step, b"".join(output.tobytes() for output in result.outputs.values()))


async def create(sessions: Sessions, count: int) -> list[SessionKey]:
    keys = [key(i) for i in range(count)]
    for each in keys:
        await sessions.create(each, "hotspot")
    return keys


def close(store: CountingStore) -> None:
    """Let writes arrive from now on, and no further."""
    store.commits.clear()
    store.arrived.clear()
    store.gate.clear()


async def arrive(store: CountingStore, commits: int) -> None:
    """Wait until so many writes are on their way, and what there is to do meanwhile has been done."""
    async with asyncio.timeout(10):
        await store.arrived.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(store.commits) == commits


@pytest.mark.parametrize(("sessions_n", "parts"), [(1, 1), (5, 1), (8, 1), (256, 2)])
async def test_answers_are_made_while_steps_are_written_and_told_when_they_are(
    engine: Engine, sessions: Sessions, store: CountingStore, sessions_n: int, parts: int
) -> None:
    keys = await create(sessions, sessions_n)
    await asyncio.gather(*(engine.step(each, one()) for each in keys))  # now they are remembered
    close(store)
    render = Rendered()
    futures = [engine.submit(each, one(2, shift=i), render) for i, each in enumerate(keys)]
    await arrive(store, parts)
    assert len(render.results) == sessions_n
    assert not any(future.done() for future in futures)
    store.gate.set()
    answers = await asyncio.gather(*futures)
    assert len(render.results) == sessions_n, "no answer is made twice"
    assert sorted(answers) == sorted(map(Rendered.answer, render.results))
    for each, answer in zip(keys, answers, strict=True):
        assert Rendered.answer(await engine.step(each, one(2))) == answer, "the stored one"


async def test_a_chunk_and_a_replay_are_rendered_too(engine: Engine, sessions: Sessions) -> None:
    await create(sessions, 1)
    render = Rendered()
    first = await engine.submit(key(0), chunk(3, 1), render)
    again = await engine.submit(key(0), chunk(3, 1), render)
    assert first == again == Rendered.answer(render.results[0])
    assert [result.replayed for result in render.results] == [False, True]


async def test_a_frame_is_rendered_part_by_part(engine: Engine, sessions: Sessions, store: CountingStore) -> None:
    keys = await create(sessions, 256)
    await asyncio.gather(*(engine.step(each, one()) for each in keys))
    close(store)
    made: list[Answers] = []

    def render(answers: Answers) -> range:
        made.append(answers)
        return range(answers.start, answers.start + len(answers.steps))

    frame = engine.submit_frame(keys, np.array([X] * 256), np.zeros(256, np.uint64), render)
    assert frame is not None
    await arrive(store, 2)
    assert sorted(answers.start for answers in made) == [0, 128]
    assert not frame.ended.done()
    assert not frame.answers
    store.gate.set()
    await asyncio.wait_for(asyncio.shield(frame.ended), 10)
    assert sorted(row for rows in frame.answers for row in rows) == list(range(256))
    assert len(made) == 2


@pytest.mark.parametrize("of", [lambda keys: keys[:1], lambda keys: keys], ids=["alone", "abreast"])
async def test_what_was_made_of_a_write_that_was_lost_is_thrown_away(
    engine: Engine,
    sessions: Sessions,
    store: CountingStore,
    models: ModelRepository,
    of: Callable[[Sequence[SessionKey]], Sequence[SessionKey]],
) -> None:
    keys = await create(sessions, 8)
    elsewhere = Engine(store, models, PrometheusObserver())
    await asyncio.gather(*(engine.step(each, one()) for each in keys))
    await elsewhere.step(keys[0], one(2, shift=1.0))  # `engine` remembers an older record
    close(store)
    render = Rendered()
    futures = [engine.submit(each, one(), render if each == keys[0] else None) for each in of(keys)]
    await arrive(store, 1)
    assert [result.step for result in render.results] == [2]
    store.gate.set()
    answers = await asyncio.gather(*futures)
    assert [result.step for result in render.results] == [2, 3]
    assert answers[0] == Rendered.answer(render.results[1])
    assert [answer.step for answer in answers[1:]] == [2] * (len(answers) - 1), "its neighbours lose nothing"
    await elsewhere.close()


@pytest.mark.parametrize("lost", [0, -1])
async def test_what_has_been_told_is_not_made_again(
    engine: Engine, sessions: Sessions, store: CountingStore, models: ModelRepository, lost: int
) -> None:
    """The parts of a batch are written as soon as they are sent, but for one session."""
    keys = await create(sessions, 256)
    elsewhere = Engine(store, models, PrometheusObserver())
    await asyncio.gather(*(engine.step(each, one()) for each in keys))
    await elsewhere.step(keys[lost], one(2, shift=1.0))  # `engine` remembers an older record
    store.commits.clear()
    render = Rendered()
    await asyncio.gather(*(engine.submit(each, one(), render) for each in keys))
    assert store.commits == [128, 128, 1]
    assert [result.step for result in render.results] == [*[2] * 255, 3]
    await elsewhere.close()


async def test_a_defect_in_making_an_answer_is_its_own_clients_alone(engine: Engine, sessions: Sessions) -> None:
    keys = await create(sessions, 8)

    def fail(_result: Result) -> bytes:
        raise RuntimeError("cannot be encoded")

    for some in (keys[:2], keys):
        futures = [engine.submit(each, one(), fail if each == keys[0] else Rendered()) for each in some]
        failed, *others = await asyncio.gather(*futures, return_exceptions=True)
        assert isinstance(failed, RuntimeError)
        assert set(map(type, others)) == {bytes}
    frame = engine.submit_frame(keys, np.array([X] * 8), np.zeros(8, np.uint64), fail)
    assert frame is not None
    with pytest.raises(RuntimeError, match="cannot be encoded"):
        await asyncio.wait_for(asyncio.shield(frame.ended), 10)
    assert [(await engine.step(each, one())).step for each in keys] == [4, 4, *[3] * 6], "it was written"
