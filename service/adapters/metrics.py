"""`Observer` -> Prometheus."""

import os
from itertools import count
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, values
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

from service.adapters.file_lock import FileLock
from service.core.session import ModelRef

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
STAGES = ("queue", "read", "run", "commit")


class PrometheusObserver:
    """See `service.core.ports.Observer`. Has a registry of its own, so that a process may hold several.

    With a folder that several processes `shared`, what any of them exposes is the sum over all of them, those that have
    ended included.
    """

    def __init__(self, shared: Path | None = None) -> None:
        self._registry = self._exposed = CollectorRegistry()
        if shared is not None:
            self._place = _share_values(shared)
            self._exposed = CollectorRegistry()
            MultiProcessCollector(self._exposed, str(shared))  # type: ignore[no-untyped-call]
        self._steps = Counter(
            "conveyor_timesteps", "Timesteps committed.", ("model", "version"), registry=self._registry
        )
        self._batch = Histogram(
            "conveyor_batch_sessions",
            "Sessions in one run of a model.",
            ("model", "version"),
            buckets=_SIZES,
            registry=self._registry,
        )
        self._models: dict[ModelRef, tuple[Histogram, Counter]] = {}
        stage = Histogram(
            "conveyor_stage_seconds",
            "Seconds that a batch spent waiting (its longest-waiting step), being read, run and committed.",
            ("stage",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._stages = {name: stage.labels(name) for name in STAGES}
        self._cache_hits = Counter(
            "conveyor_cache_hits", "Turns whose session was remembered.", registry=self._registry
        )
        self._cache_misses = Counter(
            "conveyor_cache_misses", "Turns whose session was read first.", registry=self._registry
        )
        self._replays = Counter("conveyor_replays", "Steps answered with a stored result.", registry=self._registry)
        self._conflicts = Counter(
            "conveyor_conflicts", "Turns made again because another writer was faster.", registry=self._registry
        )
        self._refusals = Counter(
            "conveyor_refusals", "Steps that ended in an error.", ("code",), registry=self._registry
        )

    def batch(self, model: ModelRef, sessions: int) -> None:
        self._of(model)[0].observe(sessions)

    def stage(self, stage: str, seconds: float) -> None:
        self._stages[stage].observe(seconds)

    def cache(self, hits: int, misses: int) -> None:
        self._cache_hits.inc(hits)
        self._cache_misses.inc(misses)

    def steps(self, model: ModelRef, timesteps: int) -> None:
        self._of(model)[1].inc(timesteps)

    def replayed(self) -> None:
        self._replays.inc()

    def conflict(self) -> None:
        self._conflicts.inc()

    def refused(self, code: str, steps: int = 1) -> None:
        self._refusals.labels(code).inc(steps)

    def _of(self, model: ModelRef) -> tuple[Histogram, Counter]:
        """Return the metrics of a model. To find them by their labels costs more than to count."""
        found = self._models.get(model)
        if found is None:
            labels = model.name, model.version
            found = self._models[model] = self._batch.labels(*labels), self._steps.labels(*labels)
        return found

    def exposition(self) -> tuple[bytes, str]:
        """Return all metrics in Prometheus' text format, and its media type."""
        return generate_latest(self._exposed), CONTENT_TYPE_LATEST


def _share_values(folder: Path) -> FileLock:
    """Keep this process's values in files in the folder; return what it holds for as long as they are its own.

    The files are named for a place, which is taken by a lock and falls free when the process ends, however it ends.
    Who takes it next counts on from there: no count ever falls, and a worker that keeps dying leaves no trail of files.
    """
    place, lock = next((place, lock) for place in count() if (lock := FileLock(folder / f"{place}.lock")).acquire())
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: place)  # type: ignore[no-untyped-call]
    return lock
