"""uvicorn's HTTP protocol, with the head and the body of a response in one write.

Written apart, as uvicorn does, they are two system calls, and most often two packets for the client to wake up for: a
tenth of the cost of a step.
"""

from typing import Any

from service.http_limits import BoundedProtocol

_STATUS_LINE = b"HTTP/1.1 "
_LENGTH = b"\r\ncontent-length: "


class HttpProtocol(BoundedProtocol):
    """Writes through a `_Cork`."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(_Cork(transport))

    def on_response_complete(self) -> None:
        self.transport.pull()  # type: ignore[attr-defined]  # a response without a body
        super().on_response_complete()

    def handle_websocket_upgrade(self) -> None:
        self.transport = self.transport.below  # type: ignore[attr-defined]
        super().handle_websocket_upgrade()


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
