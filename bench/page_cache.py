"""The memory that Redis's append-only file is written to."""

import os
from contextlib import suppress
from pathlib import Path

_FILES = ("appendonlydir/*", "appendonly.aof")
"""Of Redis 7 and newer, and of older ones."""


def let_go(folder: Path) -> None:
    """Write what is in the append-only files of a Redis to the disk, and have the system let go of its copy in memory.

    What the file grows by next is kept in memory that has been in use until now, as on a machine without any to spare.
    Else it would be memory that has never been touched, or not for long, and on virtual machines that costs a multiple
    of the write itself: what would be measured is the hypervisor (docs/decisions/0481). Where the system has no such
    call, nothing is done.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    for pattern in _FILES:
        for path in folder.glob(pattern):
            with suppress(FileNotFoundError), path.open("rb") as file:  # Redis may have replaced it since
                os.fdatasync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
