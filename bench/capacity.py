"""What larger machines would carry, derived from the processor time that a step costs the service and Redis here.

A worker keeps one core busy, and so does a Redis shard. Of `cores`, n are the shards' and the others the workers'. What
they carry is the lesser of what the workers can compute and what the shards can commit.

A batch goes to one Redis as one script call. On a cluster it goes as one call per hash tag, which at these batch sizes
is about one per session. So for a shard of several, Redis' cost is raised by what the script alone costs more when each
session of the batch has a call of its own.
"""

from collections.abc import Sequence
from typing import NamedTuple

from bench.pages import markdown_table
from bench.probes.memory import RECORD
from bench.scenarios import CONVEYOR, REDIS, REDIS_SPLIT
from bench.summary import Run, cells, readings

UTILISATION = 0.7
"""Share of each core that is planned with: beyond, waiting times grow fast."""

CORES = (8, 64)
SHARDS = (1, 2, 4, 8, 16)
BATCH_OF = {"rest-64": 64, "ws-64": 64, "ws-64x8": 64, "frame-256": 256, "batch-256x2": 512}
"""The ways that are reckoned with, and the sessions whose steps are in flight in each: its largest batch."""


class Way(NamedTuple):
    """A way to send timesteps, and the processor seconds that a thousand cost. `on_cluster_s` are a shard's."""

    title: str
    service_s: float
    redis_s: float
    on_cluster_s: float
    answer_bytes: float

    def workers_carry(self, workers: int) -> float:
        """Timesteps per second."""
        return workers * UTILISATION * 1000 / self.service_s

    def shards_carry(self, shards: int) -> float:
        """Timesteps per second."""
        return shards * UTILISATION * 1000 / (self.redis_s if shards == 1 else self.on_cluster_s)


def ways(run: Run) -> list[Way]:
    """Return the ways that can be reckoned with: of which everything was measured, and long enough to be above 0."""
    measured = {(cell.scenario, cell.subject): cell for cell in cells(run)}
    found = []
    for name, batch in BATCH_OF.items():
        alone = f"alone-{batch}"
        keys = ((name, CONVEYOR), (alone, REDIS_SPLIT), (alone, REDIS))
        cell, split, together = (measured.get(key) for key in keys)
        if cell is None or split is None or together is None:
            continue
        if min(cell.server_cpu_s, cell.redis_cpu_s, together.redis_cpu_s) > 0:
            dearer = max(1.0, split.redis_cpu_s / together.redis_cpu_s)
            redis_s = cell.redis_cpu_s
            found.append(Way(cell.title, cell.server_cpu_s, redis_s, redis_s * dearer, cell.answer_bytes))
    return found


def page_part(run: Run) -> str:
    """Return the derivation as a part of a page."""
    found = ways(run)
    if not found:
        return "Not derived: it needs the scenarios and the commit script alone, measured in one run."
    parts = [
        f"Derived from the medians above, with {UTILISATION:.0%} of each core planned with.",
        _costs(found),
        "Timesteps per second, and what they are limited by:",
        _carried(found),
        _beyond_processors(run, found),
    ]
    return "\n\n".join(part for part in parts if part)


def _costs(found: Sequence[Way]) -> str:
    head = (
        "way",
        "a worker's core, steps/s",
        "one Redis, steps/s",
        "workers that it feeds",
        "a shard of several, steps/s",
    )
    rows = [
        [
            way.title,
            f"{way.workers_carry(1):,.0f}",
            f"{way.shards_carry(1):,.0f}",
            f"{way.service_s / way.redis_s:.1f}",
            f"{way.shards_carry(2) / 2:,.0f}",
        ]
        for way in found
    ]
    return markdown_table(head, rows, left=1)


def _carried(found: Sequence[Way]) -> str:
    head = ("way", "cores", *(f"{n} shard{'s' if n > 1 else ''}" for n in SHARDS))
    rows = [[way.title, str(cores), *(_cell(way, cores, n) for n in SHARDS)] for way in found for cores in CORES]
    return markdown_table(head, rows, left=1)


def _cell(way: Way, cores: int, shards: int) -> str:
    if shards >= cores:
        return "–"
    workers, committed = way.workers_carry(cores - shards), way.shards_carry(shards)
    return f"{min(workers, committed):,.0f} {'workers' if workers < committed else 'Redis'}"


def _beyond_processors(run: Run, found: Sequence[Way]) -> str:
    """What else 100,000 timesteps a second ask for: the append-only file's disk, the answers' network."""
    record = next((spread[0] for reading, spread in readings(run) if reading.title == RECORD), None)
    rate = 100_000
    lines = [
        f"Beyond processors, {rate:,} timesteps a second, one by one, need:",
        *([f"- {record * rate / 1e6:,.0f} MB/s of append-only file ({record:,.0f} B a record);"] if record else []),
        *(f"- {way.title}: {way.answer_bytes * rate * 8 / 1e9:.2f} Gbit/s of answers;" for way in found),
    ]
    return f"{lines[0]}\n\n" + "\n".join(lines[1:]).removesuffix(";") + "."
