"""The open loop measures what it says, on a real server, for a moment; what a soak makes of its samples."""

import pytest

pytest.importorskip("matplotlib", reason="needs the bench extra")
pytest.importorskip("psutil", reason="needs the bench extra")

from bench import population
from bench.overload import PREFIX, SESSIONS, kinds, offer
from bench.scenarios import CONVEYOR
from bench.servers import running
from bench.soak import Sample, slopes


def test_all_that_falls_due_is_answered_one_way_or_the_other() -> None:
    with running((CONVEYOR,)) as servers:
        population.fill(servers.redis, PREFIX, SESSIONS)
        for kind in kinds().values():
            load = offer(kind, servers, 200.0, 1.0).load
            assert load.offered > 0
            assert load.taken > 0
            assert 0 < load.p50_ms <= load.p99_ms


def test_a_slope_is_told_as_a_share_of_the_mean() -> None:
    samples = [Sample(float(at), 100.0 + at, 10, 5, 1.0, 0, 0, 0, 0, 0) for at in range(101)]
    found = {slope.quantity.split(" ")[0]: slope for slope in slopes(samples)}
    assert found["resident"].rise == pytest.approx(50 / 175)
    assert found["open"].rise == pytest.approx(0, abs=1e-9)
