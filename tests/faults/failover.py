"""What the tests of failovers share: a client that numbers its steps and goes back where it is told to."""

import asyncio
from typing import Any

import httpx

from tests.process import wait_until
from tests.redis_deployments import READY_WITHIN_S
from tests.servers import ConveyorServer
from tests.streaming_client import Answer, Row, open_session, stream_over_rest

DEADLINE_S = 60.0


async def until(true: Any, what: str) -> None:
    """Wait for something to become true, as `wait_until` does, without holding up the event loop."""
    assert await asyncio.to_thread(wait_until, true, READY_WITHIN_S, 0.05), what


async def undisturbed(service: ConveyorServer, session_id: str, rows: list[Row]) -> list[object]:
    """The outputs of each step in a session that nothing happens to."""
    await open_session(service.url, session_id)
    return [answer["outputs"] for answer in await stream_over_rest([service.url], session_id, rows)]


async def settled(http: httpx.AsyncClient, session_id: str, rows: list[Row], step: int) -> httpx.Response:
    """Send a step until there is an answer to it that is not "later"."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            response = await http.post(f"/v1/sessions/{session_id}/steps", json={"x": rows[step - 1], "step": step})
            if response.status_code != 503:
                return response
            await asyncio.sleep(0.05)


async def replay(http: httpx.AsyncClient, session_id: str, rows: list[Row], first: int) -> list[Answer]:
    """Send the steps from `first` on, each of which has to be applied."""
    answers = []
    for step in range(first, len(rows) + 1):
        response = await settled(http, session_id, rows, step)
        assert response.status_code == 200, response.text
        answers.append(dict(response.json()))
    return answers
