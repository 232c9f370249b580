"""Who runs where: the server that is measured has a core to itself, everything else shares the others.

The same for every subject. Without it the scheduler moves Redis and the load generator onto the server's core and away
again, and what is measured is how often.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def divided() -> Iterator[set[int]]:
    """Keep this process, and what it starts, off one core; yield that core, or nothing where there is but one."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if len(cores) < 2:
        yield set()
        return
    first = min(cores)
    os.sched_setaffinity(0, cores - {first})
    try:
        yield {first}
    finally:
        os.sched_setaffinity(0, cores)


def give(pid: int, cores: set[int]) -> None:
    """Let a process that has just been started run on these cores alone, where there are any."""
    if cores:
        os.sched_setaffinity(pid, cores)
