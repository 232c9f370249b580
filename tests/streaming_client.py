"""The small client that survives: it numbers its steps, and sends one again until it is answered."""

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import httpx
import orjson
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

Row = list[float]
Answer = dict[str, Any]

PAUSE_S = 0.02


def reading(session: int, step: int) -> Row:
    """Return a plausible timestep of the demo model, different for each session and step."""
    wobble = ((session * 7919 + step * 104729) % 1000) / 1000
    return [0.5 + wobble / 2, 10 + wobble, 50 + 4 * wobble, 70 + 9 * wobble, 1.0, wobble, 1 - wobble, 0.0]


async def open_session(url: str, session_id: str) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=10) as http:
        (await http.put(f"/v1/sessions/{session_id}", json={"model": "hotspot"})).raise_for_status()


async def stream_over_rest(
    urls: Sequence[str], session_id: str, rows: Sequence[Row], first_step: int = 1
) -> list[Answer]:
    """Send rows as steps `first_step`, …, each to the next of the servers, until every one has been answered."""
    answers = []
    servers = itertools.cycle(urls)
    async with httpx.AsyncClient(timeout=5) as http:
        for step, row in enumerate(rows, first_step):
            answers.append(await _answered(http, servers, session_id, {"x": row, "step": step}))
    return answers


async def _answered(
    http: httpx.AsyncClient, servers: Iterable[str], session_id: str, message: dict[str, Any]
) -> Answer:
    for url in servers:
        try:
            response = await http.post(f"{url}/v1/sessions/{session_id}/steps", json=message)
        except httpx.TransportError:
            await asyncio.sleep(PAUSE_S)
            continue
        if response.status_code == 200:
            return dict(response.json())
        if response.status_code != 503:
            raise AssertionError(f"step {message['step']} of {session_id}: {response.status_code} {response.text}")
        await asyncio.sleep(PAUSE_S)
    raise AssertionError("no server is left")


async def stream_over_websocket(ws_url: str, session_id: str, rows: Sequence[Row], window: int = 4) -> list[Answer]:
    """The same over a WebSocket with several steps in flight, connecting again wherever it is cut off.

    The documented rule: the session's step in the greeting says where to go on. Steps that were applied and not
    answered before the cut are not sent again, except for the last, whose answer is kept; their answers are missing.
    """
    answers: dict[int, Answer] = {}
    while len(rows) not in answers:
        try:
            await _stream_on(ws_url, session_id, rows, window, answers)
        except (OSError, WebSocketException, EOFError):
            await asyncio.sleep(PAUSE_S)
    return [answers[step] for step in sorted(answers)]


async def _stream_on(
    ws_url: str, session_id: str, rows: Sequence[Row], window: int, answers: dict[int, Answer]
) -> None:
    async with connect(f"{ws_url}/v1/sessions/{session_id}/stream?model=hotspot", open_timeout=5) as socket:
        at = orjson.loads(await socket.recv())["step"]
        sent = received = at if at == 0 or at in answers else at - 1
        while received < len(rows):
            while sent < min(len(rows), received + window):
                sent += 1
                await socket.send(orjson.dumps({"x": rows[sent - 1], "step": sent}).decode())
            answer = orjson.loads(await socket.recv())
            if "error" in answer:
                # A conflict: what was in flight before the cut was applied after the greeting.
                if answer["error"]["status"] != 503 and answer["error"]["code"] != "step_conflict":
                    raise AssertionError(f"{session_id}: {answer}")
                raise EOFError("not now: connect again")
            received = answer["step"]
            answers[received] = answer
