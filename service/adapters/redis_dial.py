"""How a connection to Redis is made: to the server of a URL, or to the one that Sentinel calls the master."""

import asyncio
from contextlib import suppress
from typing import Any, Protocol

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from service.adapters.redis_address import SENTINEL, read_url
from service.adapters.redis_channel import Channel, pack

SENTINEL_PORT = 26379
LOOK_EVERY_S = 0.5
"""How often Sentinel is asked whether the master is still the one that is connected to."""

_ROLE = pack("ROLE")


class Dial(Protocol):
    """Makes connections. Raises what the client library raises."""

    async def open(self) -> Channel: ...

    async def close(self) -> None: ...


def dial(url: str, timeout_s: float) -> Dial:
    """Return how the server of a URL is reached. Raises ValueError for one that cannot be read."""
    return SentinelDial(url, timeout_s) if url.startswith(SENTINEL) else ServerDial(url, timeout_s)


class ServerDial:
    """One server, by its URL (``redis://``, ``rediss://``, ``unix://``)."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._pool = ConnectionPool.from_url(url, **_options(timeout_s))

    async def open(self) -> Channel:
        return await Channel.open(self._pool.make_connection(), self._timeout_s)  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        """Nothing is kept between connections."""


class SentinelDial:
    """The master of a service, asked for anew with each connection.

    After a failover the old master, where it lives, takes itself for one until Sentinel comes round to it, which may be
    ten seconds; all that it is told by then is lost. So Sentinel is asked all the time, and a connection is closed when
    another master is named.

    ``redis+sentinel://[user:password@]host[:port][,…]/service[/database]``: the hosts are the sentinels', the
    credentials the servers'. Sentinels that ask for credentials get the options ``sentinel_username`` and
    ``sentinel_password``; all other options are those of ``redis://``.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        servers = read_url(url, SENTINEL_PORT)
        service, _, database = servers.path.partition("/")
        if not service or not (database or "0").isdigit():
            raise ValueError("what follows the hosts must be /service-name or /service-name/database")
        options: dict[str, Any] = {**parse_url(servers.url_of(servers.addresses[0], database))}
        credentials = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
        options["ssl"] = options.pop("connection_class", None) is not None
        for name in ("host", "port"):
            options.pop(name, None)
        self._service = service
        self._master: tuple[str, int] | None = None
        self._channel: Channel | None = None
        self._watching: asyncio.Task[None] | None = None
        # All of them are asked in turn, and have to have been asked while the caller waits.
        asking = _options(timeout_s / (len(servers.addresses) + 1))
        self._timeout_s = timeout_s
        self._sentinel = Sentinel(servers.addresses, sentinel_kwargs={**credentials, **asking})  # type: ignore[no-untyped-call]
        self._pool = SentinelConnectionPool(  # type: ignore[no-untyped-call]
            service, self._sentinel, **options, **_options(timeout_s)
        )

    async def open(self) -> Channel:
        connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        channel = await Channel.open(connection, self._timeout_s)
        try:
            role, *_ = await channel.exchange(_ROLE)
            if role != b"master":
                raise ConnectionError(f"Sentinel names a master that says that it is a {role.decode()}")
        except BaseException:
            channel.close()
            raise
        self._master, self._channel = (connection.host, connection.port), channel
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        return channel

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._sentinel.aclose()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            # No sentinel answers, or there is no master: the old one will do. A connection that is reset as it is made
            # is a RuntimeError to uvloop, and must not be the end of the watch.
            with suppress(RedisError, OSError, RuntimeError):
                master = await self._sentinel.discover_master(self._service)
                if master != self._master and self._channel is not None:
                    self._channel.close(ConnectionError("Sentinel names another master"))


def _options(timeout_s: float) -> dict[str, Any]:
    return {
        "driver_info": None,  # CLIENT SETINFO would have to be allowed, and Redis 6 and 7.0 do not know it
        "protocol": 2,  # replies in the order of the commands, and nothing in between
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
    }
