"""The rate limits of a process: who has which, and the settling with the other processes of what was taken."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol
from weakref import WeakValueDictionary

import numpy as np
import structlog
from numpy.typing import NDArray

from service.core.access import Principal
from service.core.errors import ConveyorError, RateLimited, Unavailable
from service.core.ports import Clock, Observer
from service.core.rate import Meter, RateLimit, SharedBuckets, rate_limit
from service.core.session import SessionKey, Timestep
from service.frame import Frame, Numbers
from service.pending import Render

log = structlog.get_logger(__name__)

SETTLE_EVERY_S = 0.1
_LAST_SETTLING_S = 0.5


class Submitter(Protocol):
    """`service.engine.Engine`, which see, or what stands before it."""

    def submit(self, key: SessionKey, timestep: Timestep, render: Render | None = None) -> asyncio.Future[Any]: ...

    def submit_frame(
        self, keys: Sequence[SessionKey], x: Numbers, numbers: NDArray[np.uint64], render: Render | None = None
    ) -> Frame | None: ...


class Rates:
    """One per process, made and used in one event loop. `default` is for those who have no limit of their own.

    Nothing waits for the shared buckets: a meter admits on what it knows, and what it has taken is settled with them in
    the background, at once after a rest and then every `SETTLE_EVERY_S`. Where they cannot be reached it is settled
    later.
    """

    def __init__(
        self, default: RateLimit | None, shared: SharedBuckets, observer: Observer, clock: Clock = time.monotonic
    ) -> None:
        self._default = default
        self._shared = shared
        self._observer = observer
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._meters: WeakValueDictionary[str, Meter] = WeakValueDictionary()
        self._active: set[Meter] = set()
        """Those whose buckets are not full. The others live as long as somebody holds them: they know nothing."""
        self._timer: asyncio.TimerHandle | None = None
        self._settling: asyncio.Task[None] | None = None
        self._settled_at = self._clock() - SETTLE_EVERY_S

    def meter(self, principal: Principal) -> Meter | None:
        """Return the meter of somebody, the same for all that they have open here; None where they have no limit."""
        limit = self._limit(principal)
        if limit is None:
            return None
        name = f"{principal.tenant}:{principal.name}"
        meter = self._meters.get(name)
        if meter is None:
            meter = self._meters[name] = Meter(name, limit)
        meter.limit = limit
        return meter

    def take(self, meter: Meter, cost: float) -> None:
        """Take `cost` timesteps. Raises `RateLimited`."""
        now = self._clock()
        try:
            meter.take(cost, now)
        except RateLimited:
            self._observer.refused(RateLimited.code)
            raise
        self._active.add(meter)
        if self._timer is None:
            self._settle_in(self._settled_at + SETTLE_EVERY_S - now)

    def limited(self, meter: Meter, submitter: Submitter) -> Submitter:
        """Return a submitter that takes each step's timesteps first, and puts them back where it is not admitted."""
        return _Limited(self, meter, submitter)

    def left(self, meter: Meter) -> tuple[float, float]:
        """Return how many timesteps are left, and in how many seconds they are as many as they can be."""
        now = self._clock()
        return meter.left(now), meter.backlog_s(now)

    async def close(self) -> None:
        """Settle what is open, as another process may be asked next; or not, where that takes long."""
        if self._timer is not None:
            self._timer.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_SETTLING_S):
                if self._settling is not None:
                    await self._settling
                await self._settle()
        if self._timer is not None:
            self._timer.cancel()  # the settling's own, for the next one

    def _limit(self, principal: Principal) -> RateLimit | None:
        if principal.rate is None:
            return self._default
        return rate_limit(principal.rate, principal.burst)

    def _settle_in(self, seconds: float) -> None:
        self._timer = self._loop.call_later(max(0.0, seconds), self._begin)

    def _begin(self) -> None:
        self._settling = self._loop.create_task(self._settle_and_go_on())

    async def _settle_and_go_on(self) -> None:
        try:
            await self._settle()
        except Exception:
            # One that cannot be settled must not keep all others from it for ever.
            log.exception("rate limits could not be settled")
        self._timer = self._settling = None
        if self._active:
            self._settle_in(SETTLE_EVERY_S)

    async def _settle(self) -> None:
        meters = [meter for meter in self._active if meter.unsettled > 0]
        now = self._clock()
        charges = [meter.charge(now) for meter in meters]
        try:
            backlogs = await self._shared.charge(charges) if charges else []
        except Unavailable as error:
            log.debug("rate limits could not be settled", reason=error.detail)
            backlogs = []
        now = self._settled_at = self._clock()
        for meter, charge, backlog_s in zip(meters, charges, backlogs, strict=False):
            meter.settled(charge, backlog_s, now)
        self._active = {meter for meter in self._active if meter.unsettled > 0 or meter.backlog_s(now) > 0}


class _Limited:
    """See `Rates.limited`."""

    def __init__(self, rates: Rates, meter: Meter, submitter: Submitter) -> None:
        self._rates = rates
        self._meter = meter
        self._submitter = submitter

    def submit(self, key: SessionKey, timestep: Timestep, render: Render | None = None) -> asyncio.Future[Any]:
        self._rates.take(self._meter, timestep.length)
        try:
            return self._submitter.submit(key, timestep, render)
        except ConveyorError:
            self._meter.give_back(timestep.length)
            raise

    def submit_frame(
        self, keys: Sequence[SessionKey], x: Numbers, numbers: NDArray[np.uint64], render: Render | None = None
    ) -> Frame | None:
        """Return None, too, where fewer timesteps are left than these: one by one, some may be taken."""
        if self._rates.left(self._meter)[0] < len(keys):
            return None
        self._rates.take(self._meter, len(keys))
        frame: Frame | None = None
        try:
            frame = self._submitter.submit_frame(keys, x, numbers, render)
        finally:
            if frame is None:
                self._meter.give_back(len(keys))
        return frame
