"""One exchange with Redis, broken at each of its bytes in turn."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random

from tests.chaos.checker import Terms, check
from tests.chaos.cursor import Cursor
from tests.chaos.deployments import Deployment, proxied
from tests.chaos.history import History
from tests.chaos.http_clients import HttpClient
from tests.chaos.nemesis import Outcome, crashes
from tests.chaos.siege import look
from tests.chaos.truth import truth
from tests.proxy import Cut, Fate, Proxy

BEYOND = 1 << 30
"""A byte behind the end of every exchange."""

_ATTEMPTS = 20


@dataclass(frozen=True)
class Sweep:
    """`cuts` says what becomes of consecutive requests that contain `marker`, one after the other, in the run for one
    position. A batch has so many `sessions`; the service remembers their records in `cache_mib`. `afresh`: it has lost
    its connections just before."""

    name: str
    marker: bytes
    cuts: Callable[[int], list[Cut]]
    sessions: int = 2
    cache_mib: int = 1
    afresh: bool = False


COMMIT, READ, GREETING = b"EVALSHA", b"MGET", b"PING"

SWEEPS = [
    Sweep("every byte: a commit's request", COMMIT, lambda at: [Cut("request", at)]),
    Sweep("every byte: a commit's reply", COMMIT, lambda at: [Cut("reply", at)]),
    Sweep("every byte: a commit's request, twice", COMMIT, lambda at: [Cut("request", at, reset=True)] * 2),
    Sweep("every byte: the reply to a repeated commit", COMMIT, lambda at: [Cut("reply", 0), Cut("reply", at)]),
    Sweep("every byte: a read's request, twice", READ, lambda at: [Cut("request", at)] * 2, sessions=3, cache_mib=0),
    Sweep(
        "every byte: a connection's first words", GREETING, lambda at: [Cut("request", at, reset=True)] * 2, afresh=True
    ),
    Sweep("every byte: the reply to them", GREETING, lambda at: [Cut("reply", at, reset=True)] * 2, afresh=True),
    Sweep("every byte: a read's reply", READ, lambda at: [Cut("reply", at, reset=True)], sessions=3, cache_mib=0),
]


class _Swept:
    """A client that takes one step for each cut."""

    def __init__(self, sweep: Sweep, deployment: Deployment) -> None:
        assert deployment.proxy is not None
        self._sweep = sweep
        self._proxy: Proxy = deployment.proxy
        self.history = History()
        self.cursors = [Cursor(self.history, f"chaos-{number}") for number in range(sweep.sessions)]
        self.client = HttpClient(deployment.url, self.cursors, deadline_s=Terms().deadline_s, pace_s=0)

    async def cut(self, at: int) -> int:
        """Send a step of each session while an exchange breaks at this byte; return how long the broken part was."""
        cuts = self._sweep.cuts(at)

        def fate(request: bytes) -> Fate:
            return cuts.pop(0) if cuts and self._sweep.marker in request else "pass"

        self._proxy.fate = fate
        if self._sweep.afresh:
            self._proxy.reset()
        goal = self.cursors[0].at + 1
        for _ in range(_ATTEMPTS):
            if behind := [cursor for cursor in self.cursors if cursor.at < goal]:
                await self.client.step(behind)
        self._proxy.fate = lambda request: "pass"
        assert not cuts, f"the exchange was not broken at byte {at}"
        return self._proxy.length


async def swept(sweep: Sweep, *, seed: int, positions: int | None = None) -> Outcome:
    """Break the exchange at every byte, or at so many that `seed` chooses. A strike is a byte."""
    async with AsyncExitStack() as stack:
        deployment = await stack.enter_async_context(proxied(cache_mib=sweep.cache_mib))
        client = _Swept(sweep, deployment)
        stack.push_async_callback(client.client.close)
        await client.client.open_lost()
        await client.cut(0)
        length = await client.cut(BEYOND)
        places: Sequence[int] = range(length + 1)
        if positions is not None and positions < len(places):
            places = Random(f"{sweep.name} {seed}").sample(places, positions)
        for at in places:
            await client.cut(at)
        await client.client.step(client.cursors)
        await look(deployment.url, client.history, client.cursors)
        report = check(client.history, truth, Terms())
        report.violations += crashes(deployment)
        return Outcome(sweep.name, len(places), report)
