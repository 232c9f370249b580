"""A WebSocket on which many messages are in flight and are answered in their order."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from service.api.dependencies import Services, principal_of
from service.api.messages import Answer
from service.api.problems import problem, wire_of
from service.api.socket import Gone, Socket
from service.core.errors import ConveyorError

GOING_AWAY = 1012
"""Close code of a service that is being stopped: connect again, go on where the last answer left off."""

PARTING_S = 5.0
"""Seconds that a client who is dismissed gets for its last answers."""
_INTERNAL = 1011


class Reply(NamedTuple):
    """A message for the client, perhaps encoded already, and the code to close the socket with after it, if any."""

    message: Answer | bytes
    close: int | None = None


class Asked(Protocol):
    """A message that is being worked on."""

    def undone(self) -> asyncio.Future[Any] | None:
        """Return something that has to be done before there is a reply, or None where there is one."""
        ...

    def reply(self, *, pipelined: bool) -> Reply:
        """Return the reply. `pipelined` says that more messages came in behind this one before it was answered."""
        ...


class Conversation:
    """Takes messages and answers them in order, at most `max_in_flight` of them at a time.

    With that many unanswered it takes no more: the rest waits in the connection, and so do answers for a client that
    does not read them. `ask` begins, *at once*, the work that a message asks for; it is called when the engine has room
    for that: until then the message waits, and all that is behind it in the connection. There is no task that waits for
    messages or answers: everything here happens in callbacks of the connection, of the engine and of the first
    unanswered message.
    """

    def __init__(self, socket: Socket, services: Services, ask: Callable[[bytes | str], Asked]) -> None:
        self.principal = principal_of(socket)
        self._socket = socket
        self._wire = socket.wire
        self._services = services
        self._has_room = services.engine.has_room
        self._max_in_flight = services.limits.max_in_flight
        self._ask = ask
        self._asked: deque[Asked] = deque()
        self._awaited: asyncio.Future[Any] | None = None
        self._held = False
        self._strained = False
        self._waiting: bytes | str | None = None  # for room
        self._stopping = False
        self._dismissal: ConveyorError | None = None
        self._end: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Converse until an answer closes the socket or `stop` is called. Raises `Gone` where the client leaves."""
        gone: asyncio.Future[None] = asyncio.create_task(self._socket.gone())
        self._services.sockets.add(self)
        try:
            self._wire.listen(self._on_message, self._answer)
            if self._services.draining:
                self._stop()
            await asyncio.wait([gone, self._end], return_when=asyncio.FIRST_COMPLETED)
            if not self._end.done():
                raise Gone
            if not self._end.cancelled():
                await self._close()
        finally:
            self._services.sockets.discard(self)
            self._services.engine.leave(self.principal.tenant, self)
            self._asked.clear()
            self._waiting = None
            self._ended.set()
            gone.cancel()

    async def stop(self) -> None:
        """Take nothing more, answer what was taken, close: the service is going away. Returns when that is done."""
        self._stop()
        await self._ended.wait()

    def dismiss(self, error: ConveyorError) -> None:
        """Take nothing more, answer what was taken, tell of an error, close. Who does not read that is cut off."""
        if self._dismissal is None:
            self._dismissal = error
            self._stop()
            self._end.get_loop().call_later(PARTING_S, self._wire.abort)

    def abort(self) -> None:
        """Stop in the middle of whatever it is: for a client that does not read its answers."""
        self._end.cancel()

    def _stop(self) -> None:
        self._stopping = True
        self._wire.pause()
        self._answer()

    async def _close(self) -> None:
        try:
            code, reason = self._end.result()
        except Exception:
            await self._socket.close(_INTERNAL)
            raise  # a defect, which the server logs
        await self._socket.close(code, reason)

    def _on_message(self, content: bytes | str) -> None:
        if self._stopping or self._end.done():
            return
        if not self._has_room(self.principal.tenant):
            self._wait(content)
            return
        try:
            self._asked.append(self._ask(content))
        except Exception as error:
            self._end.set_exception(error)
            return
        if len(self._asked) >= self._max_in_flight:
            self._held = True
            self._wire.pause()
        if len(self._asked) == 1:
            self._answer()

    def _answer(self, _done: object = None) -> None:
        """Send the answers that are there, up to the first one that is not."""
        if self._end.done():
            return
        try:
            self._send_answers()
        except Exception as error:
            self._end.set_exception(error)
            return
        if self._held and not self._strained and len(self._asked) < self._max_in_flight and not self._stopping:
            self._held = False
            self._wire.resume()

    def _wait(self, content: bytes | str) -> None:
        """Take nothing more until there is room in the engine."""
        self._waiting = content
        self._held = self._strained = True
        self._wire.pause()
        self._services.engine.wait(self.principal.tenant, self)

    def let_in(self) -> None:
        """There is room in the engine, see `service.entrance.Waiter`."""
        self._strained = False
        content, self._waiting = self._waiting, None
        if content is not None:
            self._on_message(content)
        self._answer()

    def _send_answers(self) -> None:
        asked = self._asked
        while asked and not self._wire.full:
            if (undone := asked[0].undone()) is not None:
                if undone is not self._awaited:
                    self._awaited = undone
                    undone.add_done_callback(self._answer)
                return
            message, close = asked[0].reply(pipelined=len(asked) > 1)
            self._socket.send(message)
            if close is not None:
                self._end.set_result((close, ""))
                return
            asked.popleft()
        if self._stopping and not asked:
            if self._dismissal is not None:
                self._socket.send({"error": problem(self._dismissal)})
                self._end.set_result((wire_of(self._dismissal).close, self._dismissal.code))
                return
            self._end.set_result((GOING_AWAY, "the service is going away"))
