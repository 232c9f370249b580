"""The WebSockets: one session's timesteps, or those of a whole gateway."""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

import msgspec
from starlette.routing import BaseRoute

from service.api.conversation import Conversation, Reply
from service.api.dependencies import Services, key_of, services_of
from service.api.messages import AddressedStep, StepMessage, decode, stream_answer
from service.api.problems import problem, wire_of
from service.api.socket import Socket, SocketRoute
from service.api.steps import Malformed, Started, decode_each, decode_step, finish, start
from service.core.errors import ConveyorError, InvalidRequest, ShuttingDown, Unavailable
from service.core.session import Result, Session, SessionKey, require_session_id

_STEP = msgspec.json.Decoder(StepMessage)
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])


async def stream(socket: Socket) -> None:
    """Stream one session. With `model` in the query it is opened if it is not there."""
    services = services_of(socket)
    session_id = socket.path_params["session_id"]
    key = key_of(session_id)
    await socket.accept()
    try:
        session = await _session(services, key, socket.query_params)
    except ConveyorError as error:
        await socket.send({"error": problem(error)})
        try_later = 1013 if isinstance(error, Unavailable) else 1008
        await socket.close(wire_of(error).close or try_later, error.code)
        return
    model = session.model
    await socket.send({"session_id": session_id, "model": model.name, "version": model.version, "step": session.step})

    def handle(content: bytes | str) -> Coroutine[Any, Any, Reply]:
        try:
            future = services.engine.submit(key, decode(_STEP, content).timestep(services.limits))
        except ConveyorError as error:
            return _failed(error, conversation)
        return _answered(future, conversation)

    conversation = Conversation(socket, services, handle)
    await conversation.run()


async def stream_many(socket: Socket) -> None:
    """Stream many sessions over one socket, by ones or by arrays."""
    services = services_of(socket)
    await socket.accept()

    def handle(content: bytes | str) -> Coroutine[Any, Any, Reply]:
        try:
            if content.lstrip()[:1] in ("[", b"["):
                items = decode(_ITEMS, content)
                steps = decode_each(items, services.limits.max_frame_steps)
                return _answered_all([(step, start(services, step)) for step in steps])
            step = decode_step(content)
            return _answered_one(step, start(services, step))
        except ConveyorError as error:
            return _failed(error)

    await Conversation(socket, services, handle).run()


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


async def _answered(future: asyncio.Future[Result], conversation: Conversation) -> Reply:
    try:
        return Reply(stream_answer(await future))
    except ConveyorError as error:
        return await _failed(error, conversation)


async def _answered_one(step: AddressedStep | Malformed, started: Started) -> Reply:
    return Reply(await finish(step, started), _only_shutdown(started))


async def _answered_all(steps: list[tuple[AddressedStep | Malformed, Started]]) -> Reply:
    answers = [await finish(step, started) for step, started in steps]
    return Reply(answers, next(filter(None, (_only_shutdown(started) for _, started in steps)), None))


async def _failed(error: ConveyorError, conversation: Conversation | None = None) -> Reply:
    """Tell of an error, and close the socket of a session where it says so; that of many goes on."""
    wire = wire_of(error)
    closes = conversation is not None and (conversation.pipelined or not wire.fragile)
    return Reply({"error": problem(error)}, wire.close if closes else None)


def _only_shutdown(started: Started) -> int | None:
    """Of the errors of single sessions, none closes a socket that carries many; the end of the service does."""
    return wire_of(started).close if isinstance(started, ShuttingDown) else None


routes: list[BaseRoute] = [
    SocketRoute("/v1/sessions/{session_id}/stream", stream),
    SocketRoute("/v1/stream", stream_many),
]
