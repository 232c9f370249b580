import asyncio

from prometheus_client.parser import text_string_to_metric_families

from service.adapters.deferred import DeferredObserver
from service.adapters.metrics import PrometheusObserver
from service.core.session import ModelRef

MODEL = ModelRef("pump", "1", b"\0" * 8)


def _tell(observer: PrometheusObserver | DeferredObserver) -> None:
    """Tell of everything there is, of each in a number of its own."""
    observer.batch(MODEL, 3)
    observer.stage("run", 0.004)
    observer.cache(5, 6)
    observer.steps(MODEL, 7)
    observer.replayed()
    observer.conflict()
    observer.conflict()
    for _ in range(4):
        observer.refused("overloaded")


def _counted(observer: PrometheusObserver) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = observer.exposition()[0].decode()
    return {
        (sample.name, tuple(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


async def test_all_that_was_told_is_passed_on_and_nothing_at_once() -> None:
    at_once, later, untold = PrometheusObserver(), PrometheusObserver(), PrometheusObserver()
    _tell(at_once)
    _tell(DeferredObserver(later))
    assert _counted(later) == _counted(untold)
    await asyncio.sleep(0)
    assert _counted(later) == _counted(at_once) != _counted(untold)


async def test_what_is_told_while_it_catches_up_is_passed_on_next() -> None:
    class Retold(PrometheusObserver):
        def replayed(self) -> None:
            super().replayed()
            deferred.conflict()

    counted = Retold()
    deferred = DeferredObserver(counted)
    deferred.replayed()
    await asyncio.sleep(0)
    assert _counted(counted)["conveyor_conflicts_total", ()] == 0
    await asyncio.sleep(0)
    assert _counted(counted)["conveyor_conflicts_total", ()] == 1
