"""uvicorn's HTTP protocol, with the head and the body of a response in one write, and a short way to say no.

Written apart, as uvicorn does, head and body are two system calls, and most often two packets for the client to wake up
for: a tenth of the cost of a step.

A process that is sent more than it can do must not spend its time on saying so. A step that is refused on the usual way
costs nearly half of one that is served; here it costs little more than to read it and to write the answer.
"""

import re
from functools import lru_cache
from typing import Any

from service.api.problems import problem_response
from service.core.access import ANYBODY
from service.core.errors import Overloaded
from service.engine import Engine
from service.http_limits import BoundedProtocol

_STATUS_LINE = b"HTTP/1.1 "
_LENGTH = b"\r\ncontent-length: "


_STEP = re.compile(rb"POST /v1/sessions/[!\x22$-.0->@-~]+/steps HTTP/1\.1\r\n")
_HEAD_END = b"\r\n\r\n"
_BODY_LENGTH = re.compile(rb"\r\ncontent-length: *(\d{1,9})\r\n")
_HEADER = rb"[!#$%&'*+.^_`|~0-9a-z-]+:[\t -~\x80-\xff]*\r\n"
_HEADERS = re.compile(rb"[^\r]*\r\n(?:%b)+" % _HEADER)
_NOT_PLAIN = re.compile(rb"\r\n(?:authorization|connection|transfer-encoding|expect|upgrade|origin):")


class HttpProtocol(BoundedProtocol):
    """Writes through a `_Cork`. Refuses steps itself where the engine has no room and everybody may ask for them."""

    _engine: Engine | None = None
    _between_requests = True

    def connection_made(self, transport: Any) -> None:
        super().connection_made(_Cork(transport))
        services = self.app_state.get("services")  # not there in an application that is not ours
        # Where people have to say who they are, a stranger is told that alone, and not how busy the others are.
        self._engine = None if services is None or services.authenticator is not None else services.engine

    def data_received(self, data: bytes) -> None:
        if self._engine is None or not self._engine.congested or not self._turn_away(self._engine, data):
            super().data_received(data)

    def on_message_begin(self) -> None:
        self._between_requests = False
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._between_requests = True
        super().on_message_complete()

    def _turn_away(self, engine: Engine, data: bytes) -> bool:
        """Refuse a request if it is nothing but a step of somebody who has not said who they are.

        All others, those in several pieces too, are the library's to read and the application's to refuse.
        """
        if not self._between_requests or (self.cycle is not None and not self.cycle.response_complete):
            return False
        if self.transport.is_closing():
            return False
        if not is_plain_step(data) or (refusal := engine.refusal(ANYBODY.tenant)) is None:
            return False
        self._unset_keepalive_if_required()
        self._forget_deadline()
        self.transport.below.write(_turned_away(refusal))  # type: ignore[attr-defined]  # whole, no body follows
        if engine.strained:
            self.flow.pause_reading()
            engine.hold(self.flow.resume_reading)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        return True

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


@lru_cache(maxsize=2)
def _turned_away(refusal: Overloaded) -> bytes:
    response = problem_response(refusal)
    headers = b"".join(b"%b: %b\r\n" % header for header in response.raw_headers)
    return b"HTTP/1.1 %d Too Many Requests\r\n%b\r\n%b" % (response.status_code, headers, bytes(response.body))


class _Cork:
    """A transport that holds back the head of a response until its body comes, if it says that one will."""

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
        self.below.write(data)

    def pull(self) -> None:
        """Write what is held back."""
        if self._head:
            self.below.write(self._head)
            self._head = b""

    def close(self) -> None:
        self.pull()
        self.below.close()
