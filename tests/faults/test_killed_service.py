"""kill -9 of the service between and during steps: every session goes on from its last answer."""

import asyncio
import uuid
from collections.abc import Iterator

import pytest

from tests.servers import ConveyorServer, RedisServer
from tests.streaming_client import Answer, open_session, reading, stream_over_rest, stream_over_websocket

STEPS = 150
SESSIONS = 6


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def rows(session: int) -> list[list[float]]:
    return [reading(session, step) for step in range(STEPS)]


def essence(answers: list[Answer]) -> dict[int, object]:
    """What must not depend on faults: each step's outputs. Whether an answer is a replay may."""
    return {answer["step"]: answer["outputs"] for answer in answers}


async def undisturbed(service: ConveyorServer, session: int) -> list[Answer]:
    session_id = str(uuid.uuid4())
    await open_session(service.url, session_id)
    return await stream_over_rest([service.url], session_id, rows(session))


async def test_no_step_is_lost_and_none_applied_twice(redis: RedisServer) -> None:
    with ConveyorServer(redis_url=redis.url) as service:
        expected = await asyncio.gather(*(undisturbed(service, i) for i in range(SESSIONS)))
        for i in range(SESSIONS):
            await open_session(service.url, f"s{i}")
        clients = [
            asyncio.create_task(stream_over_rest([service.url], f"s{i}", rows(i)))
            if i % 2
            else asyncio.create_task(stream_over_websocket(service.ws_url, f"s{i}", rows(i)))
            for i in range(SESSIONS)
        ]
        kills = 0
        while not all(client.done() for client in clients) and kills < 4:
            await asyncio.sleep(0.12)
            service.kill()
            kills += 1
            await asyncio.to_thread(service.start)
        async with asyncio.timeout(60):
            answers = await asyncio.gather(*clients)
        assert kills == 4, "the clients were still streaming when the service was killed"
        for i in range(SESSIONS):
            received, truth = essence(answers[i]), essence(expected[i])
            assert received.items() <= truth.items(), "every answer is that of the undisturbed run, to the bit"
            assert STEPS in received
            if i % 2:
                assert len(received) == STEPS, "with one step in flight, every step is answered"


async def test_an_answered_step_is_there_for_the_next_process(redis: RedisServer) -> None:
    with ConveyorServer(redis_url=redis.url) as service:
        await open_session(service.url, "between")
        whole = await undisturbed(service, 0)
        first = await stream_over_rest([service.url], "between", rows(0)[:20])
        service.kill()
        service.start()
        rest = await stream_over_rest([service.url], "between", rows(0)[20:], first_step=21)
        assert not any(answer["replayed"] for answer in rest)
        assert essence(first + rest) == essence(whole)
