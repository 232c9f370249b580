"""What a nemesis is, and how one is let loose."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from tests.chaos.checker import Report, Terms, Violation
from tests.chaos.deployments import Deployed, Deployment, single
from tests.chaos.siege import besiege

Strike = Callable[[Deployment, Random], Awaitable[object]]
"""Breaks something and mends it again. When it returns, the deployment can serve, or soon will."""


@dataclass(frozen=True)
class Nemesis:
    """`terms` are what the history is held to while `strike` happens over and over."""

    name: str
    strike: Strike
    deployed: Deployed = field(default_factory=single)
    terms: Terms = field(default_factory=Terms)


class Outcome(NamedTuple):
    """What came of a nemesis that struck so many times."""

    name: str
    strikes: int
    report: Report


async def let_loose(nemesis: Nemesis, *, seed: int, seconds: float) -> Outcome:
    """Deploy, besiege for so many seconds, judge. `seed` decides when and how it strikes."""
    chance = Random(f"{nemesis.name} {seed}")
    strikes = 0
    async with nemesis.deployed() as deployment:

        async def harm() -> None:
            nonlocal strikes
            end = asyncio.get_running_loop().time() + seconds
            while asyncio.get_running_loop().time() < end:
                await asyncio.sleep(chance.uniform(0.1, 0.6))
                await nemesis.strike(deployment, chance)
                strikes += 1

        report = await besiege(deployment.url, harm, nemesis.terms)
        report.violations += crashes(deployment)
    return Outcome(nemesis.name, strikes, report)


def crashes(deployment: Deployment) -> list[Violation]:
    """What the services say of defects of their own."""
    _, traceback, rest = deployment.printed().partition("Traceback")
    return [Violation("crashed", "the service", f"Traceback{rest[:1500]}")] if traceback else []
