"""``POST …/steps``: the routes that every timestep takes, and so the thin ones."""

import asyncio
from collections.abc import Callable, Sequence

import msgspec
from fastapi import APIRouter, Request, Response

from service.api.dependencies import Limits, key_of, principal_of, services_of
from service.api.encodings import Encoding, of_request
from service.api.hot import Encoded, ThinRoute, body_of
from service.api.many import Malformed, begin
from service.api.messages import Addressed, decode, rest_answer
from service.api.openapi import body
from service.api.rate_limits import submitter
from service.api.schemas import ManyStepsAnswer, ManyStepsRequest, StepAnswer, StepRequest
from service.core.errors import InvalidRequest
from service.core.session import SessionKey
from service.rates import Submitter

router = APIRouter(tags=["steps"], route_class=ThinRoute)


@router.post("/v1/sessions/{session_id}/steps", response_model=StepAnswer, openapi_extra=body(StepRequest))
async def step(request: Request) -> Response:
    """Advance a session by a timestep or a chunk, and get the outputs.

    A step that carries its number is applied once, however often it is sent: sent again, it gets the stored answer.
    """
    services = services_of(request)
    key = key_of(request, request.path_params["session_id"])
    if not services.engine.admit(key.tenant):
        await services.engine.enter(key.tenant)
    sent, wanted = of_request(request.scope["headers"])
    content = await body_of(request)
    return Encoded(await submit(submitter(request), services.limits, key, content, sent, wanted), wanted.media_type)


@router.post("/v1/steps", response_model=ManyStepsAnswer, openapi_extra=body(ManyStepsRequest))
async def many_steps(request: Request) -> Response:
    """Advance many sessions in one call. Each step succeeds or fails on its own; the order is kept."""
    services = services_of(request)
    tenant = principal_of(request).tenant
    if not services.engine.admit(tenant):
        await services.engine.enter(tenant)
    sent, wanted = of_request(request.scope["headers"])
    content = await body_of(request)
    # What is decoded is not kept until the answer: it is freed at a fraction of the cost while it is in the caches.
    begun = begin(
        services, submitter(request), tenant, _addressed(sent, content, services.limits.max_frame_steps), wanted
    )
    while (undone := begun.undone()) is not None:
        await asyncio.wait({undone})
    return Encoded(wanted.encode({"results": wanted.fragment(begun.answer())}), wanted.media_type)


def submit(
    submitter: Submitter, limits: Limits, key: SessionKey, content: bytes, sent: Encoding, wanted: Encoding
) -> asyncio.Future[bytes]:
    """Submit the step that a request's body asks for; return the future of the answer's. Raises `ConveyorError`."""
    timestep = decode(sent.step, content).timestep(limits)
    session_id = key.session_id
    return submitter.submit(key, timestep, lambda result: wanted.encode(rest_answer(session_id, result)))


def decode_step(encoding: Encoding, content: bytes | str) -> Addressed | Malformed:
    """Decode a step that names its session."""
    try:
        return decode(encoding.addressed, content)
    except InvalidRequest as error:
        try:
            return Malformed(decode(encoding.session_name, content).session_id, error)
        except InvalidRequest:
            return Malformed(None, error)


def _each(encoding: Encoding, items: Sequence[msgspec.Raw], limit: int) -> list[Addressed | Malformed]:
    """Decode steps one by one, so that a malformed one is alone with its error."""
    if len(items) > limit:
        raise InvalidRequest(f"{len(items)} steps were sent at once; at most {limit} are taken")
    return [decode_step(encoding, bytes(item)) for item in items]


def _addressed(encoding: Encoding, content: bytes, limit: int) -> Sequence[Addressed | Malformed]:
    steps = _at_once(lambda: encoding.many.decode(content).steps, limit)
    return _each(encoding, decode(encoding.raw, content).steps, limit) if steps is None else steps


def decode_array(encoding: Encoding, content: bytes | str, limit: int) -> Sequence[Addressed | Malformed]:
    """Decode an array of steps that name their sessions. Raises `InvalidRequest` for more than `limit`."""
    steps = _at_once(lambda: encoding.array.decode(content), limit)
    return _each(encoding, decode(encoding.items, content), limit) if steps is None else steps


def _at_once(decoded: Callable[[], Sequence[Addressed]], limit: int) -> Sequence[Addressed] | None:
    """Return steps that can be decoded together; the others are decoded one by one, which also says what is wrong."""
    try:
        steps = decoded()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return steps if len(steps) <= limit else None
