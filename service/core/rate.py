"""How much somebody may ask for in a time, and how much of it is left: the generic cell rate algorithm (GCRA).

A bucket holds `burst` timesteps and is filled with `rate` of them per second. All there is to know of it is when it
will be full: what is taken from it moves that moment by `taken / rate`.

Of several processes that take from one bucket each keeps a `Meter`. It admits on what it knows, and settles what it
has taken with the others' a little later: `unsettled` goes there, the backlog of all of them comes back. What was
taken at the same time elsewhere is then missing here, so that nobody gets more in the long run.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from service.core.errors import RateLimited

_RESOLUTION_S = 1e-6
"""A wait shorter than this is the rounding of sums of seconds, and none."""


SLOWEST, FASTEST, LARGEST = 1e-4, 1e6, 10**9
"""Rates, in timesteps per second, and bursts that can be meant: beyond, times leave what Redis can count."""


class RateLimit(NamedTuple):
    """`rate` timesteps per second, and `burst` at once after a rest."""

    rate: float
    burst: float

    @property
    def window_s(self) -> int:
        """Whole seconds in which an empty bucket is full again, and so a time to which the rate can be stated."""
        return max(1, math.ceil(self.burst / self.rate))


def rate_limit(rate: float, burst: float | None) -> RateLimit:
    """Return a limit; what is allowed at once is what is allowed in a second, if nobody says so."""
    return RateLimit(rate, max(1.0, rate) if burst is None else burst)


class Charge(NamedTuple):
    """`cost` timesteps were taken from the bucket `name`, which is filled with `rate` of them per second.

    `age_s` is how long ago the first of them was, in seconds: since then the bucket has been filling again.
    """

    name: str
    cost: float
    rate: float
    age_s: float = 0.0


class Meter:
    """What one process knows of a bucket. `now` is a monotonic clock's, in seconds."""

    __slots__ = ("__weakref__", "_charged_at", "_full_at", "_unsettled_since", "limit", "name", "unsettled")

    def __init__(self, name: str, limit: RateLimit) -> None:
        self.name = name
        self.limit = limit
        self.unsettled = 0.0
        """Timesteps that were taken here and are not in the backlog that all share."""
        self._unsettled_since = self._charged_at = self._full_at = -math.inf

    def take(self, cost: float, now: float) -> None:
        """Take `cost` timesteps, or raise `RateLimited` and take none.

        More than the bucket can ever hold is admitted where it is full, and leaves it in debt.
        """
        rate, burst = self.limit
        full_at = self._full_at if self._full_at > now else now
        room = burst - cost if cost < burst else 0.0
        wait_s = full_at - now - room / rate
        if wait_s > _RESOLUTION_S:
            raise RateLimited(
                f"{rate:g} timesteps per second are allowed, {burst:g} of them at once, and these are spent",
                retry_after_s=math.ceil(wait_s * 1000) / 1000,
            )
        self._full_at = full_at + cost / rate
        if self.unsettled <= 0:
            self._unsettled_since = now
        self.unsettled += cost

    def give_back(self, cost: float) -> None:
        """Put back what was taken and not used."""
        self._full_at -= cost / self.limit.rate
        self.unsettled -= cost

    def charge(self, now: float) -> Charge:
        """Return what is to be settled."""
        self._charged_at = now
        return Charge(self.name, self.unsettled, self.limit.rate, now - self._unsettled_since)

    def settled(self, charge: Charge, backlog_s: float, now: float) -> None:
        """Be told that the last charge was settled, and in how many seconds the bucket of all is full."""
        self.unsettled -= charge.cost
        self._unsettled_since = self._charged_at
        self._full_at = now + backlog_s + self.unsettled / self.limit.rate

    def left(self, now: float) -> float:
        """Return how many timesteps the bucket holds; none where it is in debt."""
        rate, burst = self.limit
        return max(0.0, burst - self.backlog_s(now) * rate)

    def backlog_s(self, now: float) -> float:
        """Return in how many seconds the bucket is full."""
        return max(0.0, self._full_at - now)


class SharedBuckets(Protocol):
    """The buckets of all processes of a service."""

    async def charge(self, charges: Sequence[Charge]) -> list[float]:
        """Take from buckets, into debt if need be; return of each in how many seconds it is full.

        A bucket that nobody has taken from is full. Names must be distinct. Raises `Unavailable` where it may or may
        not have been done.
        """
        ...
