"""How much memory the process may use: what the machine has, or less where a container or a shell allows less."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

_UNIFIED, _MEMORY = "", "memory"
"""How /proc/self/cgroup calls the controllers of version 2, and that of version 1 which limits memory."""


def available_bytes(root: Path = Path("/")) -> int:
    """Return the bytes that the process may use. `root` is where the system's files are."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_of_cgroups(root)]
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if address_space != resource.RLIM_INFINITY:
        limits.append(address_space)
    return min(limits)


def _of_cgroups(root: Path) -> Iterator[int]:
    """Return the limits of the process's control groups and of those around them."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # another system than Linux, or none of it to be seen
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == _UNIFIED:
            mounted, name = root / "sys/fs/cgroup", "memory.max"
        elif _MEMORY in controllers.split(","):
            mounted, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container the path may be the host's, of which only the last part is mounted, as the root.
        group = Path(os.path.normpath(path)).relative_to("/")
        for each in (group, *group.parents):
            yield from _limit(mounted / each / name)


def _limit(file: Path) -> Iterator[int]:
    try:
        said = file.read_text().strip()
    except OSError:
        return
    if said.isdecimal():  # else "max"
        yield int(said)
