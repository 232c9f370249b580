"""How many files a process may have open: each connection is one."""

import resource

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
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    return max(soft - BESIDE, 1)
