"""uvicorn's HTTP protocol, with the head and the body of a response in one write, and a short way to say no.

Written apart, as uvicorn does, head and body are two system calls, and most often two packets for the client to wake up
for: a tenth of the cost of a step.

A process that is sent more than it can do must not spend its time on saying so. A step that is refused on the usual way
costs nearly half of one that is served; here it costs little more than to read it and to write the answer. Until there
is room for it, or it is refused, it is kept as it came, see `service.entrance`.
"""

import re
from functools import lru_cache
from typing import Any

from service.api.dependencies import Services
from service.api.problems import problem_response
from service.core import access
from service.core.access import ANYBODY
from service.core.errors import Overloaded, Unauthenticated
from service.http_limits import BoundedProtocol

_STATUS_LINE = b"HTTP/1.1 "
_LENGTH = b"\r\ncontent-length: "


_STEP = re.compile(rb"POST /v1/sessions/[!\x22$-.0->@-~]+/steps HTTP/1\.1\r\n")
_HEAD_END = b"\r\n\r\n"
_BODY_LENGTH = re.compile(rb"\r\ncontent-length: *(\d{1,9})\r\n")
_HEADER = rb"[!#$%&'*+.^_`|~0-9a-z-]+:[\t -~\x80-\xff]*\r\n"
_HEADERS = re.compile(rb"[^\r]*\r\n(?:%b)+" % _HEADER)
_NOT_PLAIN = re.compile(rb"\r\n(?:transfer-encoding|expect|upgrade|origin|connection(?!: *keep-alive\r\n)):")
_CREDENTIAL = re.compile(rb"\r\nauthorization: *bearer ([^\r]+)(?=\r\n)", re.IGNORECASE)


class HttpProtocol(BoundedProtocol):
    """Writes through a `_Cork`. Keeps steps waiting, and refuses them, itself, where the engine has no room."""

    _services: Services | None = None
    _between_requests = True
    _tenant = ANYBODY.tenant
    _kept = b""  # a step that waits for room
    _further = b""  # what came behind it

    def connection_made(self, transport: Any) -> None:
        super().connection_made(_Cork(transport))
        self._services = self.app_state.get("services")  # not there in an application that is not ours

    def connection_lost(self, exc: Exception | None) -> None:
        self._let_go()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._kept:
            self._further += data
            self.flow.pause_reading()
        elif self._services is None or not self._services.engine.congested or not self._keep(self._services, data):
            super().data_received(data)

    def on_message_begin(self) -> None:
        self._between_requests = False
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._between_requests = True
        super().on_message_complete()

    def shutdown(self) -> None:
        if self._kept:
            self.let_in()
        super().shutdown()

    def let_in(self) -> None:
        """There is room in the engine, see `service.entrance.Asker`."""
        kept, further = self._let_go()
        super().data_received(kept)
        if further and not self.transport.is_closing():
            self.flow.resume_reading()
            super().data_received(further)

    def turn_away(self, refusal: Overloaded) -> None:
        """Answer what is kept with a refusal; where it may be more than a step, the application is to do that."""
        kept, further = self._let_go()
        if self.transport.is_closing():
            return
        if not is_plain_step(kept):
            super().data_received(kept)
        else:
            self.transport.below.write(_turned_away(refusal))  # type: ignore[attr-defined]  # whole, no body follows
            again = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
            self.timeout_keep_alive_task = again
        if further and not self.transport.is_closing():
            self.flow.resume_reading()
            self.data_received(further)

    def _keep(self, services: Services, data: bytes) -> bool:
        """Keep a request waiting, or refuse it, if it is a step of somebody for whom there is no room.

        The parts of one that has been read in part are the library's to read, and the application's to keep or refuse.
        """
        if not self._between_requests or (self.cycle is not None and not self.cycle.response_complete):
            return False
        if self.transport.is_closing() or _STEP.match(data) is None:
            return False
        tenant = _tenant_of(data, services)
        if tenant is None or services.engine.has_room(tenant):
            return False
        self._unset_keepalive_if_required()
        self._forget_deadline()
        self._tenant, self._kept = tenant, data
        services.engine.ask(tenant, self)
        return True

    def _let_go(self) -> tuple[bytes, bytes]:
        """Return what is kept, and what came behind it, and keep it no longer."""
        kept, further = self._kept, self._further
        if kept:
            self._kept = self._further = b""
            self._services.engine.leave(self._tenant, self)  # type: ignore[union-attr]
        return kept, further

    def on_response_complete(self) -> None:
        self.transport.pull()  # type: ignore[attr-defined]  # a response without a body
        super().on_response_complete()

    def handle_websocket_upgrade(self) -> None:
        self.transport = self.transport.below  # type: ignore[attr-defined]
        super().handle_websocket_upgrade()


def is_plain_step(data: bytes) -> bool:
    """Whether this is one whole request to take a step, with no header that asks for more than that."""
    end = data.find(_HEAD_END)
    if end < 0 or _STEP.match(data) is None:
        return False
    head = data[: end + 2].lower()
    length = _BODY_LENGTH.search(head)
    return (
        length is not None
        and len(data) == end + len(_HEAD_END) + int(length[1])
        and head.count(b"content-length") == 1
        and _HEADERS.fullmatch(head) is not None
        and _NOT_PLAIN.search(head) is None
    )


def _tenant_of(data: bytes, services: Services) -> str | None:
    """Return the tenant whose step this is, or None where that cannot be told at once, or they may not take one.

    A stranger is told that alone, and not how busy the others are. Who has a rate limit is told of it in each answer.
    """
    principal = ANYBODY
    if services.authenticator is not None:
        found = _CREDENTIAL.findall(data, 0, data.find(_HEAD_END) + 2)
        try:
            known = services.authenticator.known(found[0]) if len(found) == 1 else None
        except Unauthenticated:
            return None
        if known is None or access.Scope.STEP not in known.scopes:
            return None
        principal = known
    return principal.tenant if services.rates.meter(principal) is None else None


@lru_cache(maxsize=2)
def _turned_away(refusal: Overloaded) -> bytes:
    response = problem_response(refusal)
    headers = b"".join(b"%b: %b\r\n" % header for header in response.raw_headers)
    return b"HTTP/1.1 %d Too Many Requests\r\n%b\r\n%b" % (response.status_code, headers, bytes(response.body))


class _Cork:
    """A transport that holds back the head of a response until its body comes, if it says that one will.

    Nothing is written where the client has left: of several requests in flight, uvicorn tells the last alone.
    """

    def __init__(self, transport: Any) -> None:
        self.below = transport
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.below, name)

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(_STATUS_LINE) and _LENGTH in data:
            self._head = data
            return
        if not self.below.is_closing():
            self.below.write(data)

    def pull(self) -> None:
        """Write what is held back."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        self.pull()
        self.below.close()
