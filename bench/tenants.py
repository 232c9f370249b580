"""A service for tenants: whose sessions are there, and with which API keys they come, if with any."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bench import population
from bench.cores import divided
from bench.servers import Redis, Server, conveyor, redis_server, temporary
from service.adapters import key_file
from service.adapters.key_file import StoredKey
from service.core.access import Scope


class Served(msgspec.Struct, frozen=True):
    """The service that is measured, and the header lines with which each tenant comes."""

    redis: Redis
    server: Server
    headers: dict[str, str]


@contextmanager
def serving(sessions: Mapping[str, int], *, keys: bool) -> Iterator[Served]:
    """Run a service with so many sessions of each tenant, called for it; with `keys` it wants to know who asks."""
    with temporary() as folder, divided() as core, redis_server(folder) as redis:
        path = folder / "keys.json" if keys else None
        headers = dict.fromkeys(sessions, "") if path is None else _write_keys(path, list(sessions))
        with conveyor(redis, folder, core, api_keys=path) as server:
            for tenant, count in sessions.items():
                population.fill(redis, tenant, count, tenant)
            yield Served(redis, server, headers)


def _write_keys(path: Path, tenants: Sequence[str]) -> dict[str, str]:
    drawn = {tenant: key_file.draw() for tenant in tenants}
    now = datetime.now(UTC)
    stored = [StoredKey(key.id, key.sha256, tenant, "bench", list(Scope), now) for tenant, key in drawn.items()]
    key_file.write(path, stored)
    return {tenant: f"authorization: Bearer {key.key}\r\n" for tenant, key in drawn.items()}
