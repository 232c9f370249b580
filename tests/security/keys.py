"""A file of API keys for a service in a test: a key for each of the names that it asks for."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from service.adapters import key_file
from service.adapters.key_file import StoredKey
from service.core.access import Scope


class Holder(NamedTuple):
    """Whose key it is, and what it may do."""

    tenant: str
    name: str
    scopes: Collection[Scope] = tuple(Scope)
    rate: float | None = None
    burst: int | None = None


def write_keys(path: Path, holders: Mapping[str, Holder]) -> dict[str, dict[str, str]]:
    """Write a file with a key for each holder; return the headers that say who asks."""
    drawn = {label: key_file.draw() for label in holders}
    now = datetime.now(UTC)
    stored = [
        StoredKey(drawn[label].id, drawn[label].sha256, tenant, name, sorted(scopes), now, rate_per_s=rate, burst=burst)
        for label, (tenant, name, scopes, rate, burst) in holders.items()
    ]
    key_file.write(path, stored)
    return {label: bearer(drawn[label].key) for label in holders}


def bearer(key: str) -> dict[str, Any]:
    return {"Authorization": f"Bearer {key}"}
