"""The core of ``make chaos``: some nemeses for a moment each, and a sample of the bytes at which an exchange breaks."""

import pytest

from tests.chaos import network_nemeses, redis_nemeses, service_nemeses
from tests.chaos.nemesis import Nemesis, Outcome, let_loose
from tests.chaos.sweep import SWEEPS, Sweep, swept
from tests.test_gateway import BINARY as NGINX

SEED = 1

CORE = [
    ("service: SIGKILL, restart", service_nemeses.NEMESES),
    ("one of two replicas behind nginx: SIGKILL", service_nemeses.NEMESES),
    ("rolling restart behind nginx", service_nemeses.NEMESES),
    ("Redis: SIGKILL, restart (appendfsync always)", redis_nemeses.NEMESES),
    ("Redis: power cut, restart (appendfsync everysec)", redis_nemeses.NEMESES),
    ("Redis: password changed, changed back", redis_nemeses.NEMESES),
    ("Redis: a read-only replica, promoted", redis_nemeses.NEMESES),
    ("Redis: FLUSHALL", redis_nemeses.NEMESES),
    ("network: blackhole, then late or reset", network_nemeses.NEMESES),
    ("network: exchanges cut at any byte", network_nemeses.NEMESES),
]


def core() -> list[Nemesis]:
    return [next(nemesis for nemesis in among if nemesis.name == name) for name, among in CORE]


def assert_held(outcome: Outcome) -> None:
    assert outcome.report.violations == [], f"{outcome.name}: {outcome.report}"
    assert outcome.strikes
    assert outcome.report.steps >= 20


@pytest.mark.parametrize("nemesis", core(), ids=lambda nemesis: nemesis.name)
async def test_nothing_is_lost_and_nothing_doubled(nemesis: Nemesis) -> None:
    if "nginx" in nemesis.name and not NGINX:
        pytest.skip("no nginx")
    outcome = await let_loose(nemesis, seed=SEED, seconds=2)
    assert_held(outcome)
    if nemesis.terms.forgets:
        assert outcome.report.rewinds, "something was forgotten, and replayed"


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda sweep: sweep.name)
async def test_an_exchange_may_break_at_any_byte(sweep: Sweep) -> None:
    assert_held(await swept(sweep, seed=SEED, positions=25))
