"""`Observer` -> Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from service.core.session import ModelRef

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
STAGES = ("queue", "read", "run", "commit")


class PrometheusObserver:
    """See `service.core.ports.Observer`. Has a registry of its own, so that a process may hold several."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
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
            "conveyor_cache_misses", "Turns whose session had to be read.", registry=self._registry
        )
        self._replays = Counter("conveyor_replays", "Steps answered with a stored result.", registry=self._registry)
        self._conflicts = Counter(
            "conveyor_conflicts", "Turns made again because another writer was faster.", registry=self._registry
        )
        self._refusals = Counter(
            "conveyor_refusals", "Steps that ended in an error.", ("code",), registry=self._registry
        )

    def batch(self, model: ModelRef, sessions: int) -> None:
        self._batch.labels(model.name, model.version).observe(sessions)

    def stage(self, stage: str, seconds: float) -> None:
        self._stages[stage].observe(seconds)

    def cache(self, hits: int, misses: int) -> None:
        self._cache_hits.inc(hits)
        self._cache_misses.inc(misses)

    def steps(self, model: ModelRef, timesteps: int) -> None:
        self._steps.labels(model.name, model.version).inc(timesteps)

    def replayed(self) -> None:
        self._replays.inc()

    def conflict(self) -> None:
        self._conflicts.inc()

    def refused(self, code: str) -> None:
        self._refusals.labels(code).inc()

    def exposition(self) -> tuple[bytes, str]:
        """Return all metrics in Prometheus' text format, and its media type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
