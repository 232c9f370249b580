"""The orderly end: what happens between SIGTERM and the server's closing of its connections."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from service.api.dependencies import Services

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def draining_on_signals(services: Services, timeout_s: float) -> Iterator[None]:
    """Stand before the server's own signal handlers, which close every socket at once.

    From the first signal on the process is not ready, so that nobody new is sent here. Sockets read nothing more, get
    the answers that they wait for and are closed with 1012. Then, or after `timeout_s` seconds, or at a second signal,
    the server's handler gets its turn. Other requests are served all the while.
    """
    loop = asyncio.get_running_loop()
    previous: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}
    tasks: set[asyncio.Task[None]] = set()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if services.draining:
            hand_on(number, frame)
        else:
            services.draining = True
            loop.call_soon_threadsafe(lambda: tasks.add(loop.create_task(drain(number, frame))))

    async def drain(number: int, frame: FrameType | None) -> None:
        if stopping := [loop.create_task(conversation.stop()) for conversation in services.sockets]:
            await asyncio.wait(stopping, timeout=timeout_s)
        hand_on(number, frame)

    def hand_on(number: int, frame: FrameType | None) -> None:
        handler = previous[number]
        if callable(handler):
            handler(number, frame)

    for handled in _SIGNALS:
        signal.signal(handled, on_signal)
    try:
        yield
    finally:
        for handled in _SIGNALS:
            signal.signal(handled, previous[handled])
