"""Clients of every kind stream while something breaks things; then it is calm, they end, and a history remains."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

import httpx

from tests.chaos.checker import Report, Terms, Violation, check
from tests.chaos.cursor import Cursor
from tests.chaos.history import History
from tests.chaos.http_clients import HttpClient
from tests.chaos.socket_clients import GatewayClient, SocketClient
from tests.chaos.truth import truth

CALM_STEPS = 10
"""Steps that each session is sent after the last fault: what went wrong in its memory shows in their answers."""

PACE_S = 0.01
"""How long a client rests after an answer: two cores serve clients, service and Redis."""


class Client(Protocol):
    cursors: Iterable[Cursor]

    async def run(self) -> None: ...


def clients_of(url: str, history: History, *, deadline_s: float, pace_s: float = PACE_S) -> list[Client]:
    """Return a client of each kind, fifteen sessions in all. They address the service at `url`."""
    cursors = iter([Cursor(history, f"chaos-{number}") for number in range(15)])

    def some(count: int) -> list[Cursor]:
        return [next(cursors) for _ in range(count)]

    timing = {"deadline_s": deadline_s, "pace_s": pace_s}
    return [
        HttpClient(url, some(1), **timing),
        HttpClient(url, some(1), **timing),
        HttpClient(url, some(3), **timing),
        SocketClient(url, *some(1), window=1, **timing),
        SocketClient(url, *some(1), window=4, **timing),
        GatewayClient(url, some(8), window=2, **timing),
    ]


async def besiege(url: str, harm: Callable[[], Awaitable[None]], terms: Terms, *, pace_s: float = PACE_S) -> Report:
    """Stream to the service at `url` while `harm` runs, and a little longer; judge what happened.

    After `harm` the service must be able to serve: a client that has not ended four deadlines later is a violation.
    """
    history = History()
    clients = clients_of(url, history, deadline_s=terms.deadline_s, pace_s=pace_s)
    unfinished = False
    try:
        async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as running:
            for client in clients:
                running.create_task(client.run())
            await harm()
            for cursor in cursors_of(clients):
                cursor.finish_after(CALM_STEPS)
            limit.reschedule(asyncio.get_running_loop().time() + 4 * terms.deadline_s)
    except TimeoutError:
        unfinished = True
    await look(url, history, cursors_of(clients))
    report = check(history, truth, terms)
    if unfinished:
        report.violations.append(Violation("unfinished", "clients", "they could not end after the last fault"))
    return report


def cursors_of(clients: Iterable[Client]) -> list[Cursor]:
    return [cursor for client in clients for cursor in client.cursors]


async def look(url: str, history: History, cursors: Iterable[Cursor]) -> None:
    """Note where the sessions are in the end."""
    async with httpx.AsyncClient(base_url=url, timeout=10, verify=False) as http:
        for cursor in cursors:
            call = history.call(cursor.session)
            answer = (await http.get(f"/v1/sessions/{cursor.session}")).json()
            if "step" in answer:
                history.position(cursor.session, call, answer["step"], final=True)
            else:
                history.error(cursor.session, call, answer["code"], "at the end")
