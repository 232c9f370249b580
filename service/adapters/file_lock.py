"""A lock that the kernel gives back when its holder dies, however it dies."""

import fcntl
import os
from pathlib import Path


class FileLock:
    """An exclusive lock (flock) on a file that tells who holds it.

    The lock belongs to the open file: it ends when the last process that has it open closes it or is gone. Children
    do not inherit it, unless they are given `descriptor` on purpose; they then hold it for as long as they live.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = -1

    def acquire(self) -> bool:
        """Take the lock if it is free; False if somebody else has it. Raises OSError where the file cannot be used."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError:
            os.close(descriptor)
            raise
        self.descriptor = descriptor
        return True

    def sign(self, name: str) -> None:
        """Write who holds the lock into the file, for those who meet it."""
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, name.encode(), 0)

    def holder(self) -> str:
        """What the present, or else the last, holder signed with; empty where it has not signed yet."""
        return self.path.read_text(errors="replace").strip()

    def close(self) -> None:
        """Close this process's side of the lock, which frees it unless a child was given it. The file stays: were it
        removed, two processes could hold a lock on two files of one name."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
