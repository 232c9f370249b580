"""One exchange with Redis, with an honest account of what may have happened when it fails."""

import hashlib
from importlib.resources import files
from typing import Any

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


class RedisLink:
    """Sends commands over a small pool of connections.

    The client library's own retries are off: it would repeat a write whose reply was lost without telling anyone.
    Here a failed exchange is repeated once on another connection when the caller says that this is harmless, and
    otherwise ends in

    - `StoreUnavailable`: the command was not carried out, for certain;
    - `OutcomeUnknown`: it was sent, and what became of it nobody knows;
    - `StoreFull`: Redis refused it for want of memory.
    """

    def __init__(self, url: str, *, timeout_s: float, connections: int = 16) -> None:
        self._pool = BlockingConnectionPool.from_url(
            url,
            max_connections=connections,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )

    async def call(self, *command: Any) -> Any:
        """Send a command whose repetition does no harm; return the reply."""
        try:
            return await self.call_once(*command)
        except StoreUnavailable:
            return await self.call_once(*command)
        except OutcomeUnknown as unknown:
            try:
                return await self.call_once(*command)
            except StoreUnavailable:
                raise unknown from None

    async def run(self, script: Script, keys: list[str], args: list[Any]) -> Any:
        """Call a script whose repetition does no harm; load it first where the server does not know it."""
        tail = (len(keys), *keys, *args)
        try:
            return await self.call("EVALSHA", script.digest, *tail)
        except NoScriptError:
            return await self.call("EVAL", script.source, *tail)

    async def call_once(self, *command: Any) -> Any:
        """Send a command; return the reply."""
        try:
            connection: AbstractConnection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
        except (RedisError, OSError, TimeoutError) as error:
            raise _unavailable(error) from error
        try:
            return await self._exchange(connection, command)
        finally:
            await self._pool.release(connection)

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
        except (RedisError, OSError, TimeoutError) as error:
            await connection.disconnect(nowait=True)
            raise OutcomeUnknown(
                f"the connection to Redis failed before it answered ({error or type(error).__name__}); the step may "
                "have been applied: send it again with its step number to be told"
            ) from error
        except BaseException:
            # Cancelled between the command and its reply: the next user of this connection would read our reply.
            await connection.disconnect(nowait=True)
            raise

    async def close(self) -> None:
        await self._pool.disconnect()


def _unavailable(error: BaseException) -> StoreUnavailable:
    if isinstance(error, AuthenticationError | AuthorizationError):
        return StoreUnavailable("Redis refused the service's credentials")
    return StoreUnavailable(f"Redis cannot be used: {error or type(error).__name__}")
