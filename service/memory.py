"""What the process does with memory that it has used."""

import ctypes
import gc

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of the C library's malloc.h
_KEPT_BYTES = 16 * 2**20
_LARGE_BYTES = 4 * 2**20


def spare_the_collector() -> None:
    """Let garbage collection look at what matters, and rarely.

    What has been made until now lives as long as the process. A step makes no cycles, but enough objects to set off a
    collection every few batches at Python's own thresholds: a tenth of its processor time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)


def keep_what_is_freed() -> None:
    """Let the C library keep a few MiB of what is freed for what is allocated next, if it is one that can.

    A batch's matrices have a few hundred KiB each. Given back to the system after every batch, they come again as pages
    that have to be cleared first: up to a fifth of a step's processor time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
