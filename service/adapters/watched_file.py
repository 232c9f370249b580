"""A file that is looked at now and then, to be read again when it has changed."""

from pathlib import Path


class WatchedFile:
    """Tells whether a file is another one than when it was last looked at, be it written to or replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, ...] | None = None

    def changed(self) -> bool:
        """Whether it changed since the last call, to begin with yes. A file that has gone counts as one change."""
        try:
            found = self.path.stat()
            seen: tuple[int, ...] = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        except OSError as error:
            seen = (error.errno or 0,)
        if seen == self._seen:
            return False
        self._seen = seen
        return True
