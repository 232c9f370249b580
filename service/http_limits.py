"""uvicorn's HTTP protocol with bounds to what a request's head may hold, and to the time in which a request must come.

uvicorn reads a head of any size and waits for the rest of a request for ever. A request that is whole when it is first
read, as nearly all are, pays a few comparisons for this.
"""

from http import HTTPStatus
from typing import Any

from fastapi import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.problems import http_problem, problem_response
from service.core.errors import Overloaded

MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 100
MAX_URL_BYTES = 8 * 1024


class BoundedProtocol(HttpToolsProtocol):
    """Refuses what is too much with a problem, and closes the connection.

    Its configuration has `request_timeout_s`, how long a request may take from its first byte to its last (and a new
    connection to its first), and `max_connections`, of which there may be so many in this process, WebSockets included.
    """

    config: Any
    _head_bytes = 0  # of a head that has come in part
    _in_head = False
    _unfinished = False  # a request has come in part
    _had_body = False  # in the piece that is being read
    _bodiless_bytes = 0  # that came behind a head since the last of its body: trailers
    _head_may_be_large = False
    _deadline: Any = None
    _last_word: Response | None = None  # a refusal that waits for the answers of earlier requests

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.config.max_connections:
            self._refuse(
                problem_response(Overloaded(f"this process has {self.config.max_connections} connections, its limit"))
            )
        else:
            self._deadline = self.loop.call_later(self.config.request_timeout_s, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing() or self._last_word is not None:
            return  # refused, and told so
        began_before = self._in_head
        goes_on = self._unfinished and not began_before
        self._head_may_be_large = began_before or len(data) > MAX_HEAD_BYTES
        self._had_body = False
        super().data_received(data)
        if goes_on and self._unfinished:
            self._bodiless_bytes = 0 if self._had_body else self._bodiless_bytes + len(data)
            if self._bodiless_bytes > MAX_HEAD_BYTES:
                self._cut_off(_head_too_large(f"more than {MAX_HEAD_BYTES} bytes behind the body"))
        elif self._in_head:
            self._head_bytes = self._head_bytes + len(data) if began_before else self._head_so_far()
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(_head_too_large(f"more than {MAX_HEAD_BYTES} bytes"))
        if not self._unfinished:
            if self._deadline is not None:
                self._forget_deadline()
        elif self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(self.config.request_timeout_s, self._late)

    def on_message_begin(self) -> None:
        self._in_head = self._unfinished = True
        self._head_bytes = self._bodiless_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        if (refusal := self._excess()) is None:
            super().on_headers_complete()
        else:
            usual, self.app = self.app, refusal
            try:
                super().on_headers_complete()
            finally:
                self.app = usual
        if not self.parser.should_upgrade():
            self.headers = []  # for trailers, which are no headers: nobody looks at them

    def on_body(self, body: bytes) -> None:
        self._had_body = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unfinished = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        was_last = not self.pipeline
        super().on_response_complete()
        if self._last_word is not None and was_last:
            self._refuse(self._last_word)

    def _should_upgrade(self) -> bool:
        # An earlier request's answer would come among the frames: as long as one is owed, this is a GET like any other.
        return super()._should_upgrade() and not self._owes()

    def handle_websocket_upgrade(self) -> None:
        self._forget_deadline()
        if (refusal := self._excess()) is None:
            super().handle_websocket_upgrade()
        else:
            self._refuse(refusal)

    def send_400_response(self, msg: str) -> None:
        self._refuse(http_problem(HTTPStatus.BAD_REQUEST, "bad_request", "this is no HTTP/1.1 request"))

    def _excess(self) -> Any:
        """Return what to answer a head that holds too much, or None."""
        if len(self.url) > MAX_URL_BYTES:
            detail = f"the URL has {len(self.url)} bytes, at most {MAX_URL_BYTES} are taken"
            return http_problem(HTTPStatus.REQUEST_URI_TOO_LONG, "url_too_long", detail, _CLOSE)
        if (count := len(list(self.scope["headers"]))) > MAX_HEADERS:
            return _head_too_large(f"{count} headers, at most {MAX_HEADERS} are taken")
        if self._head_may_be_large and self._head_so_far() > MAX_HEAD_BYTES:
            return _head_too_large(f"more than {MAX_HEAD_BYTES} bytes")
        return None

    def _head_so_far(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.scope["headers"])

    def _late(self) -> None:
        self._deadline = None
        detail = f"the request was not all here after {self.config.request_timeout_s:g} s"
        self._cut_off(http_problem(HTTPStatus.REQUEST_TIMEOUT, "request_timeout", detail))

    def _cut_off(self, response: Response) -> None:
        """Close in the middle of a request, with an answer where there is none yet."""
        if self.cycle is not None and self.cycle.more_body and self.cycle.response_started:
            self.transport.close()
        else:
            self._refuse(response)

    def _refuse(self, response: Response) -> None:
        """Answer in place of the application, and close; where earlier requests wait for answers, after those."""
        if self.transport.is_closing():
            return
        self._forget_deadline()
        self._unfinished = self._in_head = False
        if self._owes():
            if self.cycle.more_body:  # it is the one that is refused
                self.pipeline.popleft()
            self._last_word = response
            return
        status = HTTPStatus(response.status_code)
        headers = b"".join(
            b"%b: %b\r\n" % (name, value) for name, value in response.raw_headers if name != b"connection"
        )
        self.transport.write(
            b"HTTP/1.1 %d %b\r\n%bconnection: close\r\n\r\n%b"
            % (status, status.phrase.encode(), headers, bytes(response.body))
        )
        self.transport.close()

    def _owes(self) -> bool:
        """Return whether there is a request before the one that is being read, or was just read, without an answer."""
        cycle = self.cycle
        return bool(self.pipeline) or (cycle is not None and not cycle.more_body and not cycle.response_complete)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


_CLOSE = {"connection": "close"}


def _head_too_large(what: str) -> Response:
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    return http_problem(status, "head_too_large", f"the request's head has {what}", _CLOSE)
