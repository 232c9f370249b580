"""How many files a process may have open: each connection is one."""

import resource
from contextlib import suppress

BESIDE = 256
"""Open files beside the clients' connections: libraries, the event loop, those to Redis, who is just being refused."""


def allow(connections: int) -> int:
    """Raise this process's limit of open files to what so many connections take, as far as the system lets it.

    Returns for how many there is room then, at most `connections`. Beyond the limit no connection could be refused in
    words: the system would take it, and it would be closed. Children inherit the limit.
    """
    wanted = connections + BESIDE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        more = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):  # there are systems with a limit beyond the hard one
            resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
            soft = more
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    return max(soft - BESIDE, 1)
