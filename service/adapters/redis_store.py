"""`StateStore` on one Redis server, or on the master that Sentinel names: one script call per batch."""

from collections.abc import Awaitable, Sequence
from typing import Any

from service.adapters.redis_durability import Durability
from service.adapters.redis_health import examine, run_of
from service.adapters.redis_link import NotConfirmed, RedisLink, Reply, Script, bulk
from service.adapters.redis_listing import Scanned, Source, page, scan_position
from service.adapters.redis_records import (
    WRITTEN,
    commit_bulks,
    commit_values,
    create_bulks,
    demoted,
    doubted,
    key_bulk,
    key_bulks,
    redis_key,
    unpacked,
    verdict,
    write_arguments,
)
from service.adapters.redis_url import shown
from service.core.errors import ConveyorError, OutcomeUnknown, StoreUnavailable
from service.core.packed import unpack
from service.core.ports import Commit, Lost, Page, StoreHealth
from service.core.session import SessionKey
from service.core.writes import Writes


class RedisStore:
    """See `service.core.ports.StateStore`.

    A commit may be sent twice when a connection fails. That is harmless: the second finds the version changed by the
    first and is handed the stored record, whose nonce says that it was ours. Where others have written since, so that
    it no longer tells, the outcome is called unknown. A write that got stuck on its way can never overtake a later one.
    """

    def __init__(
        self, url: str, *, timeout_s: float = 2.0, description: str | None = None, durability: Durability = "none"
    ) -> None:
        self._durability = durability
        self.link = self._link = RedisLink(url, timeout_s=timeout_s, durability=durability)
        """For what else this Redis keeps, beside sessions."""
        self._commit = Script("commit")
        self._create = Script("create")
        self._prefetch = Script("prefetch")
        self._prefetched: tuple[Sequence[SessionKey], bytes] = (), b""
        self._description = description or f"Redis at {shown(url)}"
        self._source = Source(["", 0], _is_position, self._scan, self.load)

    async def load(self, keys: Sequence[SessionKey]) -> list[bytes | None]:
        values: list[bytes | None] = await self._certain(self._link.many(b"MGET", [key_bulk(key) for key in keys]))
        return unpack(values)

    def prefetch(self, keys: Sequence[SessionKey]) -> None:
        names = key_bulks(keys)
        self._prefetched = keys, names
        self._link.send(self._prefetch, len(keys), [names])

    async def commit(self, commits: Sequence[Commit]) -> list[Lost | ConveyorError | None]:
        doubt: NotConfirmed | None = None
        bulks = self._write_bulks(commits) if isinstance(commits, Writes) else None
        if bulks is None:
            bulks = commit_bulks(commits, commit_values(commits))
        try:
            replies, repeated = await self._link.run(self._commit, len(commits), 3 * len(commits), bulks)
        except NotConfirmed as error:
            (replies, repeated), doubt = error.reply, error
        if replies == [WRITTEN] * len(commits):
            return [doubt] * len(commits)  # nearly always of None
        if demoted(replies):
            self._link.leave()
        verdicts = [
            verdict(reply, commit.version, commit.record, repeated)
            for reply, commit in zip(replies, commits, strict=True)
        ]
        made = unpacked(verdicts)
        return made if doubt is None else [doubted(each, doubt) for each in made]

    async def create(self, key: SessionKey, record: bytes) -> bytes | None:
        reply, repeated = await self._link.run(self._create, 1, 2, create_bulks(key, record))
        if demoted([reply]):
            self._link.leave()
        (made,) = unpacked([verdict(reply, b"", record, repeated)])
        if isinstance(made, ConveyorError):
            raise made
        return made.current if made else None

    async def delete(self, key: SessionKey) -> bool:
        try:
            return bool(await self._link.call_once("DEL", redis_key(key)))
        except NotConfirmed:
            raise
        except OutcomeUnknown:
            # Not sent again: somebody may have opened a session of that name since.
            if await self._certain(self._link.many(b"EXISTS", [bulk(redis_key(key).encode())])):
                raise
            return True

    async def scan(self, tenant: str, model: str | None, cursor: str | None, limit: int) -> Page:
        return await page(self._source, tenant, model, cursor, limit)

    async def health(self) -> StoreHealth:
        found = await examine(self._read, self._durability, "Redis")
        return StoreHealth(f"{self._description}, {found.description}", found.warnings)

    async def close(self) -> None:
        await self._link.close()

    def _write_bulks(self, writes: Writes) -> Sequence[bytes | memoryview] | None:
        """Return what `commit_bulks` does, if the writes are alike. What was made for `prefetch` is not made again."""
        arguments = write_arguments(writes)
        if arguments is None:
            return None
        keys, names = self._prefetched
        return names if keys is writes.keys else key_bulks(writes.keys), arguments

    async def _scan(self, position: list[Any], pattern: str, count: int) -> Scanned:
        """Scan on. A position is a server's run and its cursor, which means nothing to another run of the server."""
        run, cursor = position
        if run != (now := await run_of(self._read)):
            cursor = 0
        following, keys = await self._read("SCAN", cursor, "MATCH", pattern, "COUNT", count)
        return Scanned(keys, [now, int(following)] if int(following) else None)

    async def _read(self, *command: Any) -> Any:
        """Send a command that changes nothing."""
        return await self._certain(self._link.call(*command))

    async def _certain(self, reading: Awaitable[Reply]) -> Any:
        """Return what was read: where reading fails, nothing is in doubt."""
        try:
            return (await reading).value
        except NotConfirmed as error:
            raise unconfirmed() from error
        except OutcomeUnknown as error:
            raise StoreUnavailable(f"Redis did not answer: {error.__cause__ or error}") from error


def _is_position(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and scan_position(value[1])


def unconfirmed() -> StoreUnavailable:
    """Return what it means that a read was not confirmed: a stored answer must not be given again yet."""
    return StoreUnavailable("Redis did not confirm in time that what it holds is as safe as it has to be")
