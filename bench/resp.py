"""Redis' protocol, as much as it takes to send commands that were packed before the clock runs."""

import socket
from pathlib import Path

TIMEOUT_S = 30


def pack(*words: bytes) -> bytes:
    """Return a command as it goes over the wire."""
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


class Link:
    """A connection on which every reply is known beforehand."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT_S)
        self._socket.connect(str(path))

    def send(self, packed: bytes) -> None:
        self._socket.sendall(packed)

    def expect(self, reply: bytes) -> None:
        """Read a reply. Raises RuntimeError where it is another one."""
        found = b""
        while len(found) < len(reply):
            part = self._socket.recv(len(reply) - len(found))
            found += part
            if not part or not reply.startswith(found):
                raise RuntimeError(f"Redis answered {found[-200:]!r}; {reply[:40]!r} … was to come")

    def close(self) -> None:
        self._socket.close()
