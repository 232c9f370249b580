"""Redis' protocol, as much as it takes to send commands that were packed before the clock runs."""

import socket
from contextlib import suppress
from pathlib import Path

from service.adapters.redis_link import bulk

TIMEOUT_S = 30
_TOLD = 200


def pack(*words: bytes) -> bytes:
    """Return a command as it goes over the wire."""
    return b"*%d\r\n" % len(words) + b"".join(map(bulk, words))


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
                raise RuntimeError(f"Redis answered {found[:20] + self._rest()!r}; {reply[:20]!r} … was to come")

    def _rest(self) -> bytes:
        """What has come besides: the words of an error."""
        self._socket.setblocking(False)
        with suppress(BlockingIOError):
            return self._socket.recv(_TOLD)
        return b""

    def close(self) -> None:
        self._socket.close()
