"""What a Redis server says of itself, and what an operator should change."""

from typing import NamedTuple

from service.adapters.redis_durability import Ask, Durability, appendfsync, fields, require_file, require_replica


class Examined(NamedTuple):
    description: str
    warnings: list[str]


async def examine(ask: Ask, durability: Durability, where: str) -> Examined:
    """Look at a server. Raises `NotDurable` where it cannot give the durability, and what `ask` raises."""
    info = fields(await ask("INFO"))
    described = f"version {info.get('redis_version', 'unknown')}"
    if durability == "replica":
        described += f", {require_replica(info, where)}"
    elif durability == "aof":
        described += f", {require_file(info, await appendfsync(ask, info), where)}"
    return Examined(described, _warnings(info))


async def run_of(ask: Ask) -> str:
    """Return what a server calls itself until it ends."""
    return fields(await ask("INFO", "server")).get("run_id", "")


def _warnings(info: dict[str, str]) -> list[str]:
    warnings = []
    if (policy := info.get("maxmemory_policy", "noeviction")) != "noeviction":
        warnings.append(
            f"Redis evicts keys when memory is short (maxmemory-policy {policy}): sessions can vanish. "
            "Set maxmemory-policy noeviction"
        )
    if info.get("aof_enabled") == "0":
        warnings.append("Redis keeps no append-only file: a restart of Redis loses sessions. Set appendonly yes")
    return warnings
