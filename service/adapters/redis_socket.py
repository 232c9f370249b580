"""The unix socket of a private redis-server: where it lies, and one word through it."""

import hashlib
import os
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

# The shortest `sun_path` of the systems that Redis runs on (macOS; Linux has 108 bytes), less the final zero.
LONGEST_SOCKET_PATH = 103


def place_socket(folder: Path) -> Path:
    """Where the server of `folder` listens: in it, or, as a socket's path must be short, in a private temporary folder.

    The temporary folder has the same name at each start, so a predecessor is met there. Raises OSError where it
    cannot be made, or is open to others.
    """
    path = folder / "redis.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    private = Path(tempfile.gettempdir(), f"conveyor-{os.geteuid()}-{name}")
    private.mkdir(mode=0o700, exist_ok=True)
    found = private.lstat()
    # A link, which somebody may have laid there for us to follow, is open to all by its mode.
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(f"{private} is open to other users; remove it")
    return private / "redis.sock"


def ask(path: Path, command: bytes) -> bytes:
    """The beginning of the server's answer; empty where nobody answers within half a second."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(0.5)
        connection.connect(str(path))
        connection.sendall(command + b"\r\n")
        return connection.recv(64)
    return b""
