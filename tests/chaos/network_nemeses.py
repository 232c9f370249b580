"""The network between the service and Redis: slow, silent, broken at every byte."""

import asyncio
from random import Random

from tests.chaos.checker import Terms
from tests.chaos.deployments import Deployment, proxied
from tests.chaos.nemesis import Nemesis
from tests.proxy import Cut, Fate, Proxy


async def slow_down(deployment: Deployment, chance: Random) -> None:
    """Far below `store_timeout_s`, so that no step needs to fail."""
    proxy = _proxy(deployment)
    proxy.delay = lambda: chance.uniform(0, 0.15)
    await asyncio.sleep(1)
    proxy.delay = lambda: 0.0


async def go_silent(deployment: Deployment, chance: Random) -> None:
    """Nothing passes, nothing is closed. Then all that was held arrives late, or all connections break."""
    proxy = _proxy(deployment)
    proxy.hold()
    await asyncio.sleep(chance.uniform(0.2, 3))
    if chance.random() < 0.5:
        proxy.reset()
    proxy.release()


async def reset(deployment: Deployment, chance: Random) -> None:
    _proxy(deployment).reset()


async def cut_anywhere(deployment: Deployment, chance: Random) -> None:
    """For a second, one exchange in five breaks at some byte of its request or its reply."""

    def fate(request: bytes) -> Fate:
        if chance.random() < 0.8:
            return "pass"
        side = chance.choice(["request", "reply"])
        return Cut(side, chance.randint(0, len(request) if side == "request" else 16), reset=chance.random() < 0.5)  # type: ignore[arg-type]

    proxy = _proxy(deployment)
    proxy.fate = fate
    await asyncio.sleep(1)
    proxy.fate = lambda request: "pass"


def _proxy(deployment: Deployment) -> Proxy:
    assert deployment.proxy is not None
    return deployment.proxy


NEMESES = [
    Nemesis("network: latency up to 150 ms a piece", slow_down, proxied, Terms(errors=frozenset())),
    Nemesis("network: blackhole, then late or reset", go_silent, proxied),
    Nemesis("network: connection resets", reset, proxied),
    Nemesis("network: exchanges cut at any byte", cut_anywhere, proxied),
]
