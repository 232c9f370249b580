"""The open loop measures what it says, on a real server, for a moment; what a soak makes of its samples."""

import pytest

pytest.importorskip("matplotlib", reason="needs the bench extra")
pytest.importorskip("psutil", reason="needs the bench extra")

from bench import fairness
from bench.overload import SESSIONS, TENANT, kinds, offer
from bench.soak import Sample, slopes
from bench.tenants import serving


@pytest.mark.parametrize("keys", [False, True])
def test_all_that_is_sent_is_answered_one_way_or_the_other(keys: bool) -> None:
    with serving({TENANT: SESSIONS}, keys=keys) as on:
        for kind in kinds().values():
            load = offer(kind, on, 200.0, 1.0).load
            assert load.offered > 0
            assert load.taken > 0
            assert 0 < load.p50_ms <= load.p99_ms


def test_what_finds_no_connection_free_is_dropped_and_counted() -> None:
    with serving({TENANT: SESSIONS}, keys=False) as on:
        load = offer(kinds()["rest"], on, 60_000.0, 1.0).load
    assert load.unsent > 0
    assert load.taken + load.refused <= load.offered - load.unsent + 1024, "what was sent in the warm-up, too"


def test_a_modest_tenant_is_measured_beside_a_neighbour() -> None:
    with serving(fairness.SESSIONS, keys=True) as on:
        point = fairness.measure(fairness.KINDS["sockets"], on, "beside 60 %", 1000.0, 0.5)
    assert point.modest.taken > 0
    assert point.neighbour is not None
    assert point.neighbour.taken > point.modest.taken


def test_a_slope_is_told_as_a_share_of_the_mean() -> None:
    samples = [Sample(float(at), 100.0 + at, 10, 5, 1.0, 0, 0, 0, 0, 0) for at in range(101)]
    found = {slope.quantity.split(" ")[0]: slope for slope in slopes(samples)}
    assert found["resident"].rise == pytest.approx(50 / 175)
    assert found["open"].rise == pytest.approx(0, abs=1e-9)
