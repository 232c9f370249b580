"""Clients that resume over HTTP: one session by single steps, or several in one call."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx

from tests.chaos.checker import TIMEOUT
from tests.chaos.cursor import MODEL, Cursor, Message

PAUSE_S = 0.05
"""How long a client waits before it comes back. Sooner than `retry_after_s` asks for: chaos has ten minutes."""


class HttpClient:
    """Sends one step of each of its sessions at a time: with one session to its own route, else to ``/v1/steps``."""

    def __init__(self, url: str, cursors: Sequence[Cursor], *, deadline_s: float, pace_s: float) -> None:
        self.cursors = cursors
        self._deadline_s = deadline_s
        self._pace_s = pace_s
        # The deadline is the client's own, over the whole of a call.
        self._http = httpx.AsyncClient(base_url=url, timeout=None, verify=False)

    async def run(self) -> None:
        """Stream until every session has reached its goal."""
        async with self._http:
            while not all(cursor.done for cursor in self.cursors):
                await self.open_lost()
                well = await self.step([cursor for cursor in self.cursors if not cursor.done])
                await asyncio.sleep(self._pace_s if well else PAUSE_S)

    async def open_lost(self) -> None:
        """Open or resume, however long it takes, the sessions of which nobody knows where they are."""
        while lost := [cursor for cursor in self.cursors if cursor.lost]:
            if not all([await self._open(cursor) for cursor in lost]):
                await asyncio.sleep(PAUSE_S)

    async def close(self) -> None:
        await self._http.aclose()

    async def _open(self, cursor: Cursor) -> bool:
        call = cursor.open()
        body = await self._ask("PUT", f"/v1/sessions/{cursor.session}", {"model": MODEL})
        if isinstance(body, str):
            cursor.broken(call, body)
        elif "code" in body:
            cursor.refused(call, body)
        else:
            cursor.opened(call, body["step"])
        return not cursor.lost

    async def step(self, cursors: Sequence[Cursor]) -> bool:
        """Send the next step of each of these sessions; return whether all were answered."""
        calls = [(cursor, cursor.send(cursor.next)) for cursor in cursors]
        messages = [cursor.message(cursor.next) for cursor in cursors]
        if len(self.cursors) == 1:
            (message,) = messages
            body = await self._ask("POST", f"/v1/sessions/{message.pop('session_id')}/steps", message)
        else:
            body = await self._ask("POST", "/v1/steps", {"steps": messages})
        if isinstance(body, str):
            for cursor, call in calls:
                cursor.broken(call, body)
            return False
        answers = body.get("results") or [{"error": body} if "code" in body else body] * len(calls)
        taken = [cursor.take(call, answer) for (cursor, call), answer in zip(calls, answers, strict=True)]
        return all(taken)

    async def _ask(self, method: str, path: str, message: Message) -> Message | str:
        """Return what was answered, or in a word why nothing was."""
        try:
            async with asyncio.timeout(self._deadline_s):
                response = await self._http.request(method, path, json=message)
        except TimeoutError:
            return TIMEOUT
        except httpx.ConnectError:
            return "refused"
        except httpx.TransportError:
            return "connection_lost"
        if "json" not in response.headers.get("content-type", ""):
            return f"http_{response.status_code}"  # a gateway's
        body: Any = response.json()
        return dict(body)
