"""The one connection to a server: made anew where it broke, and given up for the moment where nobody answers."""

import asyncio
import time

from redis.exceptions import AuthenticationError, AuthorizationError, RedisError

from service.adapters.redis_breaker import Breaker
from service.adapters.redis_channel import Channel, ReplyError
from service.adapters.redis_dial import Dial, dial
from service.adapters.redis_durability import Durability, Guard, guard_for
from service.adapters.redis_tls import tls_refusal
from service.core.errors import StoreUnavailable
from service.core.ports import Clock

PATIENCE = 0.25
"""Of the time that an exchange may take, what is spent to find out whether only its connection was dead."""

PROBE_PAUSE_S = 0.1
"""Between two attempts to reach a server that does not answer. One that does answer ends an attempt when it does."""

UNWANTED_S = 60.0
"""Without a call for so long, a server is not tried any more: it may have left its cluster for good."""

_REFUSED = (RedisError, ReplyError, OSError)
_SILENT = "Redis cannot be used: it does not answer in time"


class Connector:
    """Keeps a connection. `timeout_s` bounds its exchanges, and the making of it.

    A server that has failed to answer in time is not waited for by one call after the other: all are refused at once,
    until it answers an attempt to connect in the background. Only those that come within `patience_s` of the failure
    wait for that first: it may have been the connection alone that was dead, and another one is there in no time.
    """

    def __init__(
        self, url: str, *, timeout_s: float, durability: Durability = "none", clock: Clock = time.monotonic
    ) -> None:
        self._channel: Channel | None = None
        self.guard: Guard | None = None
        """What has to follow commands on it."""
        self.patience_s = PATIENCE * timeout_s
        self._durability = durability
        self._timeout_s = timeout_s
        self._clock = clock
        self._dial: Dial = dial(url, timeout_s)
        self._left: set[Channel] = set()
        self._opening = asyncio.Lock()
        self._breaker = Breaker(clock)
        self._probing: asyncio.Task[None] | None = None
        self._wanted_at = clock()

    @property
    def channel(self) -> Channel | None:
        """The connection, if there is one and it was not closed meanwhile."""
        channel = self._channel
        return None if channel is None or channel.closed else channel

    async def open(self) -> Channel:
        """Return a connection that is not known to be dead. Raises `StoreUnavailable`."""
        self._wanted_at = self._clock()
        if self._probing is not None and self._breaker.is_open:
            await asyncio.wait([self._probing], timeout=self._breaker.patience_s)
        async with self._opening:
            if self.channel is not None:
                return self.channel
            if self._breaker.is_open:
                raise StoreUnavailable(_SILENT)
            begun = self._clock()
            try:
                return await self._connect()
            except _REFUSED as error:
                if self._is_late(begun):
                    self._give_up(patience_s=0.0)
                raise _unavailable(error) from error

    def late(self, channel: Channel) -> None:
        """Be told that an exchange was not answered in time."""
        if channel is self._channel and channel.closed:  # else another one has taken its place since
            self._give_up(self.patience_s)

    def leave(self) -> None:
        """Use another connection from now on; what is in flight is still answered."""
        if (channel := self._channel) is None:
            return
        self._channel = None
        self._left.add(channel)

        def close() -> None:
            self._left.discard(channel)
            channel.close()

        # By then all of it has been answered, or is late.
        asyncio.get_running_loop().call_later(self._timeout_s, close)

    async def close(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        for channel in {self._channel, *self._left}:
            if channel is not None:
                channel.close()
        await self._dial.close()

    async def _connect(self) -> Channel:
        async with asyncio.timeout(self._timeout_s):
            channel = await self._dial.open()
            try:
                guard = await guard_for(self._durability, channel, self._timeout_s)
                if channel.closed:  # nothing that is sent on it would ever end
                    raise ConnectionError("the connection broke as it was made")
            except BaseException:
                channel.close()
                raise
        if self.channel is not None:  # a probe and a call have met
            channel.close()
            return self.channel
        self._channel, self.guard = channel, guard
        return channel

    def _give_up(self, patience_s: float) -> None:
        if self._breaker.open(patience_s):
            self._probing = asyncio.create_task(self._probe())

    async def _probe(self) -> None:
        """Try to connect until the server answers, if only to refuse: whoever calls next will find out why."""
        try:
            while self._clock() - self._wanted_at < UNWANTED_S:
                begun = self._clock()
                try:
                    await self._connect()
                except (*_REFUSED, StoreUnavailable):
                    if self._is_late(begun):
                        await asyncio.sleep(PROBE_PAUSE_S)
                        continue
                return
        finally:
            self._breaker.close()

    def _is_late(self, begun: float) -> bool:
        """Return whether what failed has kept its caller waiting: a refusal comes soon, and is nothing to wait for."""
        return self._clock() - begun >= self.patience_s


def _unavailable(error: BaseException) -> StoreUnavailable:
    if isinstance(error, AuthenticationError | AuthorizationError):
        return StoreUnavailable("Redis refused the service's credentials")
    if isinstance(error, TimeoutError):
        return StoreUnavailable(_SILENT)
    return StoreUnavailable(f"Redis cannot be used: {tls_refusal(error) or str(error) or type(error).__name__}")
