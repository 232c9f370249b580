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
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed, most = (wanted if limit == resource.RLIM_INFINITY else min(limit, wanted) for limit in limits)
    if allowed < most:
        with suppress(OSError, ValueError):  # there are systems with a limit beyond the hard one
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
            allowed = most
    return max(allowed - BESIDE, 1)
