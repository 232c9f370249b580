"""``/v1/sessions``: a session's life outside of its timesteps."""

import uuid
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response

from service.api.dependencies import Caller, Key, Services, Serving
from service.api.encodings import JSON
from service.api.hot import needing
from service.api.rate_limits import count_history
from service.api.schemas import CreateSession, ForkSession, OpenSession, SessionInfo, SessionList, session_info
from service.core.access import Scope
from service.core.errors import ModelMismatch
from service.core.session import Session, SessionKey, require_session_id
from service.core.timestep import named

router = APIRouter(prefix="/v1/sessions", tags=["sessions"], route_class=needing(Scope.SESSIONS))

RECORD = "application/octet-stream"
_RECORD_CONTENT: dict[str, Any] = {RECORD: {"schema": {"type": "string", "format": "binary"}}}


@router.post("", status_code=201, response_model=SessionInfo)
async def create_session(request: CreateSession, caller: Caller, services: Serving, connection: Request) -> Response:
    """Open a session under a name that is free, primed with `history` if there is any."""
    count_history(connection, len(request.history or ()))
    key = _new_key(caller.tenant, request.session_id)
    session = await services.sessions.create(key, request.model, request.version, request.ttl_s, request.history)
    return _answer(services, key, session, 201)


@router.put("/{session_id}", response_model=SessionInfo, responses={201: {"model": SessionInfo}})
async def open_session(key: Key, request: OpenSession, services: Serving, connection: Request) -> Response:
    """Open a session, or resume the one of that name: 201 where it is new, 200 where it was there."""
    count_history(connection, len(request.history or ()))
    require_session_id(key.session_id)
    session, created = await services.sessions.open(key, request.model, request.version, request.ttl_s, request.history)
    return _answer(services, key, session, 201 if created else 200)


@router.get("", response_model=SessionList, response_model_exclude_unset=True)
async def list_sessions(
    caller: Caller,
    services: Serving,
    model: Annotated[str | None, Query(description="Only sessions of this model")] = None,
    cursor: Annotated[str | None, Query(description="Where the last page ended")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> SessionList:
    """List sessions, in no particular order."""
    page = await services.sessions.list(caller.tenant, model, cursor, limit)
    return SessionList(
        sessions=[session_info(SessionKey(caller.tenant, id_), session) for id_, session in page.sessions],
        cursor=page.cursor,
    )


@router.get("/{session_id}", response_model=SessionInfo)
async def get_session(key: Key, services: Serving) -> Response:
    """Show where a session is, and its last outputs."""
    return _answer(services, key, await services.sessions.get(key))


@router.delete("/{session_id}", status_code=204)
async def delete_session(key: Key, services: Serving) -> None:
    """Forget a session."""
    await services.sessions.delete(key)


@router.post("/{session_id}/reset", response_model=SessionInfo)
async def reset_session(key: Key, services: Serving) -> Response:
    """Set a session back to before its first timestep."""
    return _answer(services, key, await services.sessions.reset(key))


@router.post("/{session_id}/fork", status_code=201, response_model=SessionInfo)
async def fork_session(key: Key, services: Serving, request: ForkSession | None = None) -> Response:
    """Copy a session to a name that is free."""
    request = request or ForkSession()
    new = _new_key(key.tenant, request.session_id)
    return _answer(services, new, await services.sessions.fork(key, new, request.ttl_s), 201)


@router.get("/{session_id}/state", response_class=Response, responses={200: {"content": _RECORD_CONTENT}})
async def get_state(key: Key, services: Serving) -> Response:
    """Hand out a session as bytes, to be put back here or elsewhere."""
    return Response(await services.sessions.export(key), media_type=RECORD)


@router.put(
    "/{session_id}/state",
    response_model=SessionInfo,
    responses={201: {"model": SessionInfo}},
    openapi_extra={"requestBody": {"required": True, "content": _RECORD_CONTENT}},
)
async def put_state(key: Key, request: Request, services: Serving) -> Response:
    """Put a session where the bytes say: 201 where it is new, 200 where one was replaced."""
    require_session_id(key.session_id)
    session, created = await services.sessions.restore(key, await request.body())
    return _answer(services, key, session, 201 if created else 200)


def _new_key(tenant: str, session_id: str | None) -> SessionKey:
    return SessionKey(tenant, require_session_id(session_id) if session_id is not None else str(uuid.uuid4()))


def _answer(services: Services, key: SessionKey, session: Session, status: int = 200) -> Response:
    info = session_info(key, session).model_dump(mode="json", exclude_none=True)
    if session.outputs:
        try:
            spec = services.models.holding(session.model).spec
            info["outputs"] = named(spec, np.frombuffer(session.outputs, np.float32))
        except ModelMismatch:
            pass  # the file that could say what these numbers are is not served any more
    return Response(JSON.encode(info), status, media_type=JSON.media_type)
