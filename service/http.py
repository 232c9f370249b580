"""uvicorn's HTTP protocol with a short way for plain steps, and each response in one write (`service.cork`).

A step that is known by its bytes (`service.plain_step`) goes to the engine from here, and its answer is written when it
is there: without a parser, ASGI and a task (docs/decisions/0012). All else is uvicorn's, and what comes behind it, too,
until that is answered.

A process that is sent more than it can do must not spend its time on saying so. Until there is room for a step, or it
is refused, nothing is made of its body, see `service.entrance`.
"""

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from fastapi import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from service.api.dependencies import Services
from service.api.gate import credential_of
from service.api.hot import Encoded
from service.api.problems import failed, problem_response
from service.api.steps import submit
from service.core import access
from service.core.access import ANYBODY
from service.core.errors import ConveyorError, Overloaded, Unauthenticated
from service.core.session import SessionKey
from service.cork import Cork
from service.http_limits import BoundedProtocol
from service.plain_step import Head, StepReader

_CLOSE = (b"connection", b"close")


class EndingState(ServerState):
    """What the connections of a server share. While it is `ending`, the next answer on each of them is the last."""

    ending = False


class HttpProtocol(BoundedProtocol):
    """See the module. Writes through a `Cork`. Where each request is to be logged, there is no short way."""

    server_state: EndingState
    _services: Services | None = None  # of the short way
    _steps: StepReader
    _between_requests = True
    _tenant = ANYBODY.tenant
    _part = b""  # a plain step without all of its body
    _kept: tuple[Head, bytes] | None = None  # a step that waits for room
    _asked: Head | None = None  # a step that waits for its answer
    _further = b""  # what came behind either

    def connection_made(self, transport: Any) -> None:
        super().connection_made(Cork(transport))
        if not self.access_log:
            self._services = self.app_state.get("services")  # not there in an application that is not ours
        self._steps = StepReader(self.config.max_body_bytes)

    def connection_lost(self, exc: Exception | None) -> None:
        self._let_go()
        self._part = self._further = b""
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._kept is not None or self._asked is not None:
            self._further += data
            self.flow.pause_reading()
        else:
            part, self._part = self._part, b""
            may_be_plain = self._services is not None and self._is_between()
            if not may_be_plain or not self._take(part + data, in_part=not part):
                super().data_received(part + data)

    def on_message_begin(self) -> None:
        self._between_requests = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.server_state.ending:
            self.finish()

    def on_message_complete(self) -> None:
        self._between_requests = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self.transport.pull()  # type: ignore[attr-defined]  # a response without a body
        super().on_response_complete()

    def handle_websocket_upgrade(self) -> None:
        self.transport = self.transport.below  # type: ignore[attr-defined]
        super().handle_websocket_upgrade()

    def finish(self) -> None:
        """Let the answer that is owed be the last. In a server that ends, so is that to whatever comes yet."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        if self._kept is not None:
            self.let_in()
        if self._asked is None and not self._part and not self._unfinished:
            super().shutdown()

    def let_in(self) -> None:
        """There is room in the engine, see `service.entrance.Asker`."""
        if (kept := self._let_go()) is not None:
            self._ask(*kept)

    def turn_away(self, refusal: Overloaded) -> None:
        """Answer what is kept with a refusal."""
        self._let_go()
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.transport.below.write(_turned_away(refusal, self.server_state.ending))  # type: ignore[attr-defined]
            self._go_on()

    def _is_between(self) -> bool:
        """Return whether the library has nothing to do with what comes next."""
        return (
            self._between_requests
            and (self.cycle is None or self.cycle.response_complete)
            and not self.flow.write_paused
            and not self.transport.is_closing()
        )

    def _take(self, data: bytes, *, in_part: bool) -> bool:
        """Take a plain step, if this is one; with `in_part`, also where its body has not come yet. Return whether."""
        services: Services = self._services  # type: ignore[assignment]  # there are some, on the short way
        plain = self._steps.read(data)
        if plain is None or (tenant := _tenant_of(plain[0], services)) is None:
            return False
        head, body = plain
        if body is None and not in_part:
            return False
        self._unset_keepalive_if_required()
        self._tenant = tenant
        if body is None:
            self._part = data
            self._deadline = self._deadline or self.loop.call_later(self.config.request_timeout_s, self._late)
            return True
        self._forget_deadline()
        if services.engine.admit(tenant):
            self._ask(head, body)
        else:
            self._kept = head, body
            services.engine.ask(tenant, self)
        return True

    def _let_go(self) -> tuple[Head, bytes] | None:
        """Return what is kept, and keep it no longer."""
        kept, self._kept = self._kept, None
        if kept is not None:
            self._services.engine.leave(self._tenant, self)  # type: ignore[union-attr]
        return kept

    def _ask(self, head: Head, body: bytes) -> None:
        """Submit a step; its answer comes to `_answered`, or the error at once."""
        services: Services = self._services  # type: ignore[assignment]  # there are some, on the short way
        self._asked = head
        key = SessionKey(self._tenant, head.session_id)
        try:
            future = submit(services.engine, services.limits, key, body, head.sent, head.wanted)
        except Exception as error:
            self._tell(_refused(head, error))
        else:
            future.add_done_callback(self._answered)

    def _answered(self, future: asyncio.Future[bytes]) -> None:
        head, error = self._asked, future.exception()
        if head is not None:
            self._tell(Encoded(future.result(), head.wanted.media_type) if error is None else _refused(head, error))

    def _tell(self, response: Response) -> None:
        """Answer the step that was asked for."""
        self._asked = None
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        headers = [*self.server_state.default_headers, *response.raw_headers]
        self.transport.below.write(_whole(response, headers, is_last=self.server_state.ending))  # type: ignore[attr-defined]
        self._go_on()

    def _go_on(self) -> None:
        """Read what came meanwhile, or wait for the next request; there is none behind the last."""
        if self.server_state.ending:
            self.transport.close()
            return
        further, self._further = self._further, b""
        if further:
            self.flow.resume_reading()
            self.data_received(further)
        else:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )


def _tenant_of(head: Head, services: Services) -> str | None:
    """Return the tenant whose step this is, or None where that cannot be told at once, or they may not take one.

    A stranger is told that alone, and not how busy the others are. Who has a rate limit is told of it in each answer.
    """
    principal = ANYBODY
    if services.authenticator is not None:
        try:
            known = services.authenticator.known(credential_of(head.headers))
        except Unauthenticated:
            return None
        if known is None or access.Scope.STEP not in known.scopes:
            return None
        principal = known
    return principal.tenant if services.rates.meter(principal) is None else None


def _refused(head: Head, error: BaseException) -> Response:
    if isinstance(error, ConveyorError):
        return problem_response(error)
    return failed("POST", f"/v1/sessions/{head.session_id}/steps", error)


@lru_cache(maxsize=4)
def _turned_away(refusal: Overloaded, is_last: bool) -> bytes:
    response = problem_response(refusal)
    return _whole(response, response.raw_headers, is_last=is_last)


def _whole(response: Response, headers: Sequence[tuple[bytes, bytes]], *, is_last: bool) -> bytes:
    """Return a response as it goes over the wire."""
    if is_last:
        headers = [*headers, _CLOSE]
    fields = b"".join([b"%b: %b\r\n" % header for header in headers])
    return b"".join((STATUS_LINE[response.status_code], fields, b"\r\n", response.body))
