"""How much is measured."""

import msgspec


class Effort(msgspec.Struct, frozen=True):
    """How long to measure each cell, and how often. The rounds of the cells that are compared are interleaved.

    `alone_s` is for the parts alone, `population` the many sessions that are compared with a thousand, in more and
    shorter rounds than the rest: the two differ by less than a round does from the next. `sockets` are the idle ones.
    """

    rounds: int
    warm_up_s: float
    seconds: float
    alone_s: float
    population: int
    population_rounds: int
    population_s: float
    sockets: int


ALONE_ROUNDS = 3
"""How many of the rounds measure the parts alone: nothing is compared with them."""
FULL = Effort(
    rounds=5,
    warm_up_s=0.3,
    seconds=1.0,
    alone_s=0.25,
    population=1_000_000,
    population_rounds=12,
    population_s=0.4,
    sockets=10_000,
)
QUICK = Effort(
    rounds=1,
    warm_up_s=0.1,
    seconds=0.3,
    alone_s=0.04,
    population=50_000,
    population_rounds=1,
    population_s=0.3,
    sockets=500,
)
"""Enough to see that everything works, and roughly how fast; its p99.9 is not worth reading."""
