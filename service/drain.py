"""The orderly end: what happens between SIGTERM and the server's closing of its connections."""

import asyncio
import signal
from types import FrameType
from typing import Any, Self

from service.api.dependencies import Services

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LAST_WORDS_S = 0.5


class Drain:
    """Stands before the server's own signal handlers, which close every WebSocket at once, while it is entered.

    From the first signal on the process is not ready, so that nobody new is sent here. For `delay_s` seconds nothing
    else changes: who sends them takes a while to notice. Then steps that were admitted are answered; sockets read
    nothing more, get the answers that they wait for and are closed with 1012. What has not ended after `timeout_s`
    seconds is ended. Then the server's handler gets its turn, or at once when the same signal comes again; another one
    is the echo of the first in a terminal or a supervisor. Requests are served all the while.
    """

    def __init__(self, services: Services, timeout_s: float, delay_s: float = 0.0) -> None:
        self._services = services
        self._delay_s = delay_s
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._server_handlers: dict[int, Any] = {}
        self._first: int | None = None
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._server_handlers = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        return self

    def __exit__(self, *_exc: object) -> None:
        for number, handler in self._server_handlers.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._first is None:
            self._first = number
            self._services.stopping = True
            self._loop.call_soon_threadsafe(self._begin, number, frame)
        elif number == self._first:
            self._hand_on(number, frame)

    def _begin(self, number: int, frame: FrameType | None) -> None:
        self._task = self._loop.create_task(self._drain(number, frame))

    async def _drain(self, number: int, frame: FrameType | None) -> None:
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        self._services.draining = True
        engine = self._services.engine
        endings = [engine.settle(), *(conversation.stop() for conversation in self._services.sockets)]
        _, late = await asyncio.wait([self._loop.create_task(ending) for ending in endings], timeout=self._timeout_s)
        if late:
            await engine.close()
            await asyncio.wait(late, timeout=_LAST_WORDS_S)
            for conversation in list(self._services.sockets):
                conversation.abort()
        self._hand_on(number, frame)

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        if callable(handler := self._server_handlers[number]):
            handler(number, frame)
