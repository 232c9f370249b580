"""The WebSockets: one session's timesteps, or those of a whole gateway."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.routing import BaseRoute

from service.api.conversation import Asked, Conversation, Reply
from service.api.dependencies import Services, key_of, principal_of, require, services_of
from service.api.many import Begun, Malformed, begin, begin_apart, begin_one, begin_together, timesteps_of
from service.api.messages import Addressed, decode, stream_answer
from service.api.moulds import Reader
from service.api.problems import problem, wire_of
from service.api.rate_limits import submitter
from service.api.socket import Socket, SocketRoute
from service.api.steps import decode_array, decode_step
from service.core.access import Scope
from service.core.errors import ConveyorError, InvalidRequest, ShuttingDown
from service.core.session import Result, Session, SessionKey, require_session_id


async def stream(socket: Socket) -> None:
    """Stream one session. With `model` in the query it is opened if it is not there."""
    services = services_of(socket)
    session_id = socket.path_params["session_id"]
    key = key_of(socket, session_id)
    await socket.accept()
    try:
        if "model" in socket.query_params:
            require(socket.scope, Scope.SESSIONS)
        session = await _session(services, key, socket.query_params)
    except ConveyorError as error:
        await socket.refuse(error)
        return
    model = session.model
    socket.send({"session_id": session_id, "model": model.name, "version": model.version, "step": session.step})

    decoder, encode, submit = socket.encoding.step, socket.encoding.encode, submitter(socket).submit

    def render(result: Result) -> bytes:
        return encode(stream_answer(result))

    def ask(content: bytes | str) -> Asked:
        try:
            return _Step(submit(key, decode(decoder, content).timestep(services.limits), render))
        except ConveyorError as error:
            return _Refused(error)

    await Conversation(socket, services, ask).run()


async def stream_many(socket: Socket) -> None:
    """Stream many sessions over one socket, by ones or by arrays."""
    services = services_of(socket)
    await socket.accept()

    encoding = socket.encoding
    engine, tenant = submitter(socket), principal_of(socket).tenant

    limits = services.limits

    def decoded(content: bytes | str) -> Sequence[Addressed | Malformed]:
        return decode_array(encoding, content, limits.max_frame_steps)

    reader = Reader(services.moulds, lambda content: timesteps_of(services, tenant, decoded(content)))

    def begin_array(content: bytes | str) -> Begun:
        if not (encoding.binary and isinstance(content, bytes)):
            return begin(services, engine, tenant, decoded(content), encoding)
        steps = None
        if (asked := reader.known(content)) is None:
            steps = decoded(content)
            if (asked := timesteps_of(services, tenant, steps)) is not None:
                reader.learn(content, asked)
        together = None if asked is None else begin_together(engine, asked, encoding)
        return together or begin_apart(limits, engine, tenant, steps or decoded(content), encoding)

    def ask(content: bytes | str) -> Asked:
        try:
            if encoding.is_array(content):
                return _Steps(begin_array(content))
            return _Steps(begin_one(limits, engine, tenant, decode_step(encoding, content), encoding))
        except ConveyorError as error:
            return _Refused(error, fatal=False)

    await Conversation(socket, services, ask).run()


async def _session(services: Services, key: SessionKey, query: Mapping[str, str]) -> Session:
    if services.draining:
        raise ShuttingDown("this process is shutting down; another one will answer")
    require_session_id(key.session_id)
    if (model := query.get("model")) is None:
        return await services.sessions.get(key)
    ttl_s = query.get("ttl_s")
    if ttl_s is not None and not (ttl_s.isdecimal() and len(ttl_s) <= 10):
        raise InvalidRequest(f"ttl_s is {ttl_s[:20]!r}; a whole number of seconds is needed")
    opened = await services.sessions.open(key, model, query.get("version"), None if ttl_s is None else int(ttl_s))
    return opened.session


class _Step:
    """A step of the one session of a socket. See `Asked`."""

    __slots__ = ("_future",)

    def __init__(self, future: asyncio.Future[bytes]) -> None:
        self._future = future

    def undone(self) -> asyncio.Future[bytes] | None:
        return None if self._future.done() else self._future

    def reply(self, *, pipelined: bool) -> Reply:
        error = self._future.exception()
        if error is None:
            return Reply(self._future.result())
        if not isinstance(error, ConveyorError):
            raise error
        return _Refused(error).reply(pipelined=pipelined)


class _Steps:
    """What a message asks for on a socket that carries many sessions. See `Asked`."""

    def __init__(self, begun: Begun) -> None:
        self._begun = begun

    def undone(self) -> asyncio.Future[Any] | None:
        return self._begun.undone()

    def reply(self, *, pipelined: bool) -> Reply:
        """Of the errors of single sessions, none closes a socket that carries many; the end of the service does."""
        going = self._begun.shut_down()
        return Reply(self._begun.answer(), wire_of(going).close if going else None)


class _Refused:
    """A message that is refused at once. One that is `fatal` closes its socket where it says so. See `Asked`."""

    def __init__(self, error: ConveyorError, *, fatal: bool = True) -> None:
        self._error = error
        self._fatal = fatal

    def undone(self) -> None:
        return None

    def reply(self, *, pipelined: bool) -> Reply:
        wire = wire_of(self._error)
        closes = self._fatal and (pipelined or not wire.fragile)
        return Reply({"error": problem(self._error)}, wire.close if closes else None)


routes: list[BaseRoute] = [
    SocketRoute("/v1/sessions/{session_id}/stream", stream, Scope.STEP),
    SocketRoute("/v1/stream", stream_many, Scope.STEP),
]
