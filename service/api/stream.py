"""The WebSockets: one session's timesteps, or those of a whole gateway."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import msgspec
from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from service.api.conversation import Conversation, Reply
from service.api.dependencies import key_of, services_of
from service.api.messages import AddressedStep, StepMessage, decode, encode, stream_answer
from service.api.problems import problem, wire_of
from service.api.steps import Started, decode_each, finish, start
from service.core.errors import ConveyorError, InvalidRequest, ShuttingDown
from service.core.session import Result, Session, require_session_id

router = APIRouter()

SUBPROTOCOL = "conveyor.v1.json"

_STEP = msgspec.json.Decoder(StepMessage)
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_ADDRESSED = msgspec.json.Decoder(AddressedStep)


@router.websocket("/v1/sessions/{session_id}/stream")
async def stream(
    socket: WebSocket, session_id: str, model: str | None = None, version: str | None = None, ttl_s: str | None = None
) -> None:
    """Stream one session. With `model` it is opened if it is not there."""
    services = services_of(socket)
    key = key_of(session_id)
    await _accept(socket)
    try:
        session = await _session(socket, session_id, model, version, ttl_s)
    except ConveyorError as error:
        await _refuse(socket, error)
        return
    await _send(
        socket,
        {
            "session_id": session_id,
            "model": session.model.name,
            "version": session.model.version,
            "step": session.step,
        },
    )

    def handle(content: bytes | str) -> Coroutine[Any, Any, Reply]:
        try:
            future = services.engine.submit(key, decode(_STEP, content).timestep(services.limits.max_chunk))
        except ConveyorError as error:
            return _failed(error, lambda: conversation.pipelined)
        return _answered(future, lambda: conversation.pipelined)

    conversation = Conversation(socket, services, handle)
    await conversation.run()


@router.websocket("/v1/stream")
async def stream_many(socket: WebSocket) -> None:
    """Stream many sessions over one socket, by ones or by arrays."""
    services = services_of(socket)
    await _accept(socket)

    def handle(content: bytes | str) -> Coroutine[Any, Any, Reply]:
        try:
            if content[:1] in ("[", b"["):
                items = decode(_ITEMS, content)
                steps = decode_each(items, services.limits.max_frame_steps)
                return _answered_all([(step, start(services, step)) for step in steps])
            step = decode(_ADDRESSED, content)
            return _answered_one(step, start(services, step))
        except ConveyorError as error:
            return _failed(error, lambda: False)

    await Conversation(socket, services, handle).run()


async def _session(
    socket: WebSocket, session_id: str, model: str | None, version: str | None, ttl_s: str | None
) -> Session:
    services = services_of(socket)
    if services.draining:
        raise ShuttingDown("this process is shutting down; another one will answer")
    require_session_id(session_id)
    key = key_of(session_id)
    if model is None:
        return await services.sessions.get(key)
    if ttl_s is not None and not (ttl_s.isdecimal() and len(ttl_s) <= 10):
        raise InvalidRequest(f"ttl_s is {ttl_s[:20]!r}; a whole number of seconds is needed")
    return (await services.sessions.open(key, model, version, None if ttl_s is None else int(ttl_s))).session


async def _answered(future: asyncio.Future[Result], pipelined: Callable[[], bool]) -> Reply:
    try:
        return Reply(stream_answer(await future))
    except ConveyorError as error:
        return await _failed(error, pipelined)


async def _answered_one(step: AddressedStep, started: Started) -> Reply:
    return Reply(await finish(step, started), _only_shutdown(started))


async def _answered_all(steps: list[tuple[AddressedStep | ConveyorError, Started]]) -> Reply:
    answers = [await finish(step, started) for step, started in steps]
    return Reply(answers, next(filter(None, (_only_shutdown(started) for _, started in steps)), None))


async def _failed(error: ConveyorError, pipelined: Callable[[], bool]) -> Reply:
    wire = wire_of(error)
    return Reply({"error": problem(error)}, None if wire.fragile and not pipelined() else wire.close)


def _only_shutdown(started: Started) -> int | None:
    """Of the errors of single sessions, none closes a socket that carries many; the end of the service does."""
    return wire_of(started).close if isinstance(started, ShuttingDown) else None


async def _accept(socket: WebSocket) -> None:
    offered = socket.scope.get("subprotocols", [])
    await socket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)


async def _refuse(socket: WebSocket, error: ConveyorError) -> None:
    await _send(socket, {"error": problem(error)})
    with suppress(WebSocketDisconnect):
        await socket.close(wire_of(error).close or 1008, error.code)


async def _send(socket: WebSocket, message: dict[str, Any]) -> None:
    with suppress(WebSocketDisconnect):  # gone already; the next receive says so
        await socket.send_text(encode(message).decode())
