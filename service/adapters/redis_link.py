"""Exchanges with Redis, with an honest account of what may have happened when one fails."""

import asyncio
import hashlib
from importlib.resources import files
from typing import Any, NamedTuple

import hiredis
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoScriptError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)

from service.core.errors import OutcomeUnknown, StoreFull, StoreUnavailable


class Script:
    """A Lua script of ``adapters/lua``, called by its digest."""

    def __init__(self, name: str) -> None:
        self.source = files("service.adapters").joinpath("lua", f"{name}.lua").read_bytes()
        self.digest = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()


class Reply(NamedTuple):
    """What Redis answered. `repeated` says that the command may have been carried out before, its reply lost."""

    value: Any
    repeated: bool


class RedisLink:
    """Sends commands over a small pool of connections. `timeout_s` bounds an exchange, its connection included.

    The client library's own retries are off: it would repeat a write whose reply was lost without telling anyone. Here
    a failed exchange is repeated once, on another connection, and ends in

    - `StoreUnavailable`: the command was not carried out, for certain;
    - `OutcomeUnknown`: it was sent, and what became of it nobody knows;
    - `StoreFull`: Redis refused it for want of memory.
    """

    def __init__(self, url: str, *, timeout_s: float, connections: int = 16) -> None:
        self._timeout_s = timeout_s
        self._pool = BlockingConnectionPool.from_url(
            url,
            max_connections=connections,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )

    async def run(self, script: Script, keys: list[str], args: list[Any]) -> Reply:
        """Call a script whose repetition does no harm; the server is sent its source where it does not know it."""
        tail = (len(keys), *keys, *args)
        return await self.call("EVALSHA", script.digest, *tail, unknown=("EVAL", script.source, *tail))

    async def call(self, *command: Any, unknown: tuple[Any, ...] = ()) -> Reply:
        """Send a command whose repetition does no harm; `unknown` in its place where its script is not known."""
        failure: StoreUnavailable | OutcomeUnknown | None = None
        while True:
            try:
                return Reply(await self.call_once(*command), isinstance(failure, OutcomeUnknown))
            except NoScriptError:
                command = unknown
            except (StoreUnavailable, OutcomeUnknown) as error:
                if failure is not None:
                    # Whatever the second attempt met, the first may have been carried out.
                    raise failure if isinstance(failure, OutcomeUnknown) else error from None
                failure = error

    async def call_once(self, *command: Any) -> Any:
        """Send a command; return the reply."""
        sent = False
        try:
            async with asyncio.timeout(self._timeout_s):
                connection: AbstractConnection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
                try:
                    sent = True
                    return await self._exchange(connection, command)
                finally:
                    await self._pool.release(connection)
        except (NoScriptError, StoreFull, StoreUnavailable, OutcomeUnknown):
            raise
        except (RedisError, OSError, TimeoutError) as error:
            raise _outcome_unknown(error) if sent else _unavailable(error) from error

    async def _exchange(self, connection: AbstractConnection, command: tuple[Any, ...]) -> Any:
        try:
            # Packed by hiredis: the client library's own packing costs five times as much for a batch's commit.
            await connection.send_packed_command([hiredis.pack_command(command)], check_health=False)
            return await connection.read_response()
        except NoScriptError:
            raise
        except OutOfMemoryError as error:
            raise StoreFull(f"Redis is out of memory: {error}") from error
        except (ResponseError, BusyLoadingError) as error:
            raise _unavailable(error) from error
        except BaseException:
            # Whatever comes on this connection now is the reply to this command, not to the next one.
            await connection.disconnect(nowait=True)
            raise

    async def close(self) -> None:
        await self._pool.disconnect()


def _unavailable(error: BaseException) -> StoreUnavailable:
    if isinstance(error, AuthenticationError | AuthorizationError):
        return StoreUnavailable("Redis refused the service's credentials")
    return StoreUnavailable(f"Redis cannot be used: {str(error) or type(error).__name__}")


def _outcome_unknown(error: BaseException) -> OutcomeUnknown:
    return OutcomeUnknown(f"Redis did not answer ({str(error) or type(error).__name__})")
