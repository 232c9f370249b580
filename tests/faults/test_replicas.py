"""Two processes on one Redis are one service."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from tests.servers import ConveyorServer, RedisServer
from tests.streaming_client import open_session, reading, stream_over_rest

STEPS = 120


@pytest.fixture(scope="module")
def replicas() -> Iterator[tuple[ConveyorServer, ConveyorServer]]:
    with (
        RedisServer() as redis,
        ConveyorServer(redis_url=redis.url) as one,
        ConveyorServer(redis_url=redis.url) as other,
    ):
        yield one, other


async def test_a_client_that_alternates_gets_the_answers_of_one_process(
    replicas: tuple[ConveyorServer, ConveyorServer],
) -> None:
    one, other = replicas
    rows = [reading(1, step) for step in range(STEPS)]
    await open_session(one.url, "alternating")
    await open_session(one.url, "steady")
    alternating = await stream_over_rest([one.url, other.url], "alternating", rows)
    steady = await stream_over_rest([one.url], "steady", rows)
    assert [answer["step"] for answer in alternating] == list(range(1, STEPS + 1))
    assert not any(answer["replayed"] for answer in alternating)
    assert [answer["outputs"] for answer in alternating] == [answer["outputs"] for answer in steady]


async def test_steps_of_many_clients_on_one_session_are_each_applied_once(
    replicas: tuple[ConveyorServer, ConveyorServer],
) -> None:
    await open_session(replicas[0].url, "contested")
    clients, each = 12, 25

    async def client(number: int) -> list[tuple[int, object]]:
        async with httpx.AsyncClient(base_url=replicas[number % 2].url, timeout=30) as http:
            answers = []
            for step in range(each):
                row = reading(number, step)
                answer = (await http.post("/v1/sessions/contested/steps", json={"x": row})).json()
                answers.append((answer["step"], (row, answer["outputs"])))
            return answers

    answered = dict(item for answers in await asyncio.gather(*map(client, range(clients))) for item in answers)
    assert sorted(answered) == list(range(1, clients * each + 1)), "numbered without a gap or a twin"
    await open_session(replicas[0].url, "retold")
    rows = [answered[step][0] for step in sorted(answered)]  # type: ignore[index]
    retold = await stream_over_rest([replicas[0].url], "retold", rows)
    assert [answer["outputs"] for answer in retold] == [answered[step][1] for step in sorted(answered)]  # type: ignore[index]


async def test_a_session_deleted_by_one_is_gone_for_the_other(
    replicas: tuple[ConveyorServer, ConveyorServer],
) -> None:
    one, other = replicas
    await open_session(one.url, "doomed")
    async with httpx.AsyncClient(timeout=10) as http:
        path = "/v1/sessions/doomed"
        assert (await http.post(f"{other.url}{path}/steps", json={"x": reading(0, 0)})).json()["step"] == 1
        assert (await http.delete(f"{one.url}{path}")).status_code == 204
        assert (await http.post(f"{other.url}{path}/steps", json={"x": reading(0, 0)})).status_code == 404
        await open_session(one.url, "doomed")
        assert (await http.post(f"{other.url}{path}/steps", json={"x": reading(0, 0), "step": 1})).json()["step"] == 1
