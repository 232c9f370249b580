"""An `Observer` that tells another one later, off the way of a step."""

import asyncio
from collections.abc import Callable
from functools import partial

from service.core.ports import Observer
from service.core.session import ModelRef


class DeferredObserver:
    """Passes on to `observer` what it is told, in the next pass of the event loop. See `service.core.ports.Observer`.

    Of a step that is alone, that is the time in which Redis is at work or after the answer has been written: to count
    at once makes it a tenth slower. Made and used in one event loop.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._told: list[Callable[[], None]] = []

    def batch(self, model: ModelRef, sessions: int) -> None:
        self._tell(partial(self._observer.batch, model, sessions))

    def stage(self, stage: str, seconds: float) -> None:
        self._tell(partial(self._observer.stage, stage, seconds))

    def cache(self, hits: int, misses: int) -> None:
        self._tell(partial(self._observer.cache, hits, misses))

    def steps(self, model: ModelRef, timesteps: int) -> None:
        self._tell(partial(self._observer.steps, model, timesteps))

    def replayed(self) -> None:
        self._tell(self._observer.replayed)

    def conflict(self) -> None:
        self._tell(self._observer.conflict)

    def refused(self, code: str, steps: int = 1) -> None:
        self._tell(partial(self._observer.refused, code, steps))

    def _tell(self, what: Callable[[], None]) -> None:
        if not self._told:
            self._loop.call_soon(self._catch_up)
        self._told.append(what)

    def _catch_up(self) -> None:
        told, self._told = self._told, []
        for tell in told:
            tell()
