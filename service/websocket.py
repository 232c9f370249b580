"""uvicorn's WebSocket protocol with a fast lane, for a message in one frame is what nearly all of them are.

Such a frame is read and written here. The handshake, fragments, pings, the closing handshake and all that is malformed
are the library's, as ever: it is fed whole frames, so that it stands between two of them whenever one is kept from it.
"""

from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from struct import Struct
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame
from websockets.http11 import MAX_LINE_LENGTH, Request
from websockets.protocol import OPEN

from service.api.problems import http_problem
from service.api.socket import EXTENSION

try:
    from websockets.speedups import apply_mask
except ImportError:  # no wheel for this platform
    from websockets.utils import apply_mask

_TEXT, _BINARY = 0x81, 0x82  # the last and only frame of a message, no extension
_MASKED = 0x80
_FIN, _CONTROL = 0x80, 0x08
_SHORTEST, _TWO_BYTES, _EIGHT_BYTES = 125, 126, 127  # what the length's first seven bits say
_SHORT, _MEDIUM, _LONG = Struct("!BB"), Struct("!BBH"), Struct("!BBQ")
_MASK_BYTES = 4


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """Offers itself to the application as a `service.api.socket.Wire`; one that does not ask for it sees plain ASGI."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._on_message: Callable[[str | bytes], None] | None = None
        self._on_writable: Callable[[], None] | None = None
        self._early: deque[str | bytes] = deque()  # messages that came before somebody listened
        self._unread = bytearray()
        self._held = False
        self._fragmented = False  # the library has read a part of a message
        self._offered = False  # the scope has this protocol in it
        self._beyond_limit = False  # the library has been given the beginning of a frame that is too long

    # What the application uses

    @property
    def full(self) -> bool:
        """Whether the client reads too slowly for more to be written."""
        return not self.writable.is_set()

    def listen(self, on_message: Callable[[str | bytes], None], on_writable: Callable[[], None]) -> None:
        """From now on hand each message to `on_message`; call `on_writable` when the socket is no longer full.

        ASGI's `receive` then returns nothing but the disconnect.
        """
        self._on_message, self._on_writable = on_message, on_writable
        for _ in range(self.queue.qsize()):
            event: Any = self.queue.get_nowait()
            if event["type"] == "websocket.receive":
                text = event.get("text")
                self._early.append(event["bytes"] if text is None else text)
            else:
                self.queue.put_nowait(event)
        self._hand_over_early()
        if self.read_paused and not self._held:
            self.resume()

    def write(self, message: bytes, *, binary: bool = False) -> None:
        """Send a message, or nothing where the connection is closing."""
        if self.conn.state is not OPEN or self.close_sent or self.disconnected:
            return
        first, length = _BINARY if binary else _TEXT, len(message)
        if length <= _SHORTEST:
            header = _SHORT.pack(first, length)
        elif length < 2**16:
            header = _MEDIUM.pack(first, _TWO_BYTES, length)
        else:
            header = _LONG.pack(first, _EIGHT_BYTES, length)
        self.transport.write(header + message)

    def pause(self) -> None:
        """Hand over no more messages, and let the client wait."""
        self._held = self.read_paused = True
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        """Hand over what has been read, and only then read more: in place of each message many would come in."""
        self._held = False
        if self._unread or self._early:
            self.loop.call_soon(self._read_on)
        else:
            self._read_on()

    def abort(self) -> None:
        """End the connection at once, whatever has not been sent yet."""
        self.transport.abort()

    # What the server calls

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[EXTENSION] = self
            self._offered = True

    def data_received(self, data: bytes) -> None:
        if not self.handshake_initiated:
            super().data_received(data)
            if not self.handshake_initiated:
                self._refuse_handshake()
        elif self._beyond_limit:
            super().data_received(data)
        elif self._unread or not self._take_whole(data):
            self._unread += data
            self._read()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of what holds this protocol: a connection must not have to wait for the garbage collector.

        That looks at what has lived for a while so rarely (see `service.app`) that what is left of sockets which come
        and go would fill the memory.
        """
        begun = self.handshake_complete and hasattr(self, "scope")  # the library says the first of all that have ended
        super().connection_lost(exc)
        self._on_message = self._on_writable = None
        self._early.clear()
        self._unread.clear()  # of a client that left while it was kept waiting
        self.conn.parser.close()
        if begun and self._offered:
            self.scope = self.scope | {"extensions": {}}

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._on_writable is not None:
            self._on_writable()

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.accept":
            self._read()  # what a client sent that did not wait
        elif message["type"] == "websocket.http.response.body" and self.close_sent:
            self.handshake_complete = True  # refused by the application, which the library takes for a defect of it
        elif message["type"] == "websocket.close":
            self._held = False  # the client's own closing frame may stand behind messages that nobody awaits
            self._read()

    def handle_text(self, event: Frame) -> None:
        super().handle_text(event)
        self._begin_fragments(event)

    def handle_bytes(self, event: Frame) -> None:
        super().handle_bytes(event)
        self._begin_fragments(event)

    def handle_cont(self, event: Frame) -> None:
        # Into one buffer: a message of a million fragments takes no more memory than one of two.
        self.frames[0] += event.data
        if event.fin:
            self.send_receive_event_to_app()

    def _refuse_handshake(self) -> None:
        """Answer a head that the library cannot read: it comes whole, and the library would wait for more of it."""
        detail = f"this is no WebSocket handshake: it has a body, or a line of more than {MAX_LINE_LENGTH} bytes"
        refusal = http_problem(HTTPStatus.BAD_REQUEST, "bad_request", detail)
        headers = b"".join(b"%b: %b\r\n" % header for header in refusal.raw_headers)
        self.handshake_complete = self.close_sent = True
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\n%bconnection: close\r\n\r\n%b" % (headers, bytes(refusal.body))
        )
        self.transport.close()

    def _begin_fragments(self, event: Frame) -> None:
        if not event.fin:
            self.frames = [bytearray(event.data)]  # type: ignore[list-item]

    def send_receive_event_to_app(self) -> None:
        content: Any = b"".join(self.frames)
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                content = content.decode()
            except UnicodeDecodeError:  # the library would log it as a defect
                self.frames = []
                self.conn.send_close(CloseCode.INVALID_DATA)
                self.handle_parser_exception()
                return
        if self._on_message is None or self.close_sent:
            super().send_receive_event_to_app()
            return
        self.frames = []
        self._on_message(content)

    def _hand_over_early(self) -> None:
        while self._early and not self._held and self._on_message is not None:
            self._on_message(self._early.popleft())

    def _read_on(self) -> None:
        self._hand_over_early()
        self._read()
        if not self._held:
            self.read_paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def _read(self) -> None:
        """Take frames while there are whole ones and somebody who wants them."""
        unread = self._unread
        while len(unread) >= 2 and not self._held and not self._early and self.handshake_complete:
            length, start = unread[1] & ~_MASKED, 2
            if length > _SHORTEST:
                start = 4 if length == _TWO_BYTES else 10
                length = int.from_bytes(unread[2:start], "big")
            start += _MASK_BYTES if unread[1] & _MASKED else 0
            if length > self.config.ws_max_size:
                self._beyond_limit = True  # said by the library, before the frame is all here
                super().data_received(bytes(unread))
                unread.clear()
            elif len(unread) < start + length:
                return
            else:
                frame = bytes(unread[: start + length])
                del unread[: start + length]
                self._take(frame, start)

    def _take(self, frame: bytes, start: int) -> None:
        if self._hand_over(frame, start):
            return
        if not frame[0] & _CONTROL:
            self._fragmented = not frame[0] & _FIN
        super().data_received(frame)

    def _take_whole(self, data: bytes) -> bool:
        """Hand over what is one whole message of less than 64 KiB, as most of what comes is, as it came."""
        if len(data) < 2 + _MASK_BYTES or self._held or self._early:
            return False
        length, start = data[1] & ~_MASKED, 2 + _MASK_BYTES
        if length == _EIGHT_BYTES:
            return False
        if length == _TWO_BYTES:
            length, start = int.from_bytes(data[2:4], "big"), 4 + _MASK_BYTES
        return len(data) == start + length <= start + self.config.ws_max_size and self._hand_over(data, start)

    def _hand_over(self, frame: bytes, start: int) -> bool:
        """Hand over the message that a frame is, or return that it is none that may go this way."""
        first = frame[0]
        if first not in (_TEXT, _BINARY) or not frame[1] & _MASKED or not self._fast():
            return False
        content = apply_mask(frame[start:], frame[start - _MASK_BYTES : start])
        try:
            self._on_message(content.decode() if first == _TEXT else content)  # type: ignore[misc]
        except UnicodeDecodeError:
            return False  # the library is told, and closes for it
        return True

    def _fast(self) -> bool:
        return (
            self._on_message is not None
            and not self._fragmented
            and self.conn.state is OPEN
            and not self.close_sent
            and not self.transport.is_closing()
        )
