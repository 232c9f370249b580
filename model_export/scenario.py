"""The simulator's surroundings: weather, and what a town draws from a transformer.

`hours` count from midnight of a Monday, the second of January.
"""

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]

YEAR_HOURS = 365.25 * 24
COLDEST_DAY = 20
WARMEST_HOUR = 15.0
OVERLOADS_PER_YEAR = 14


def ambient_temperature(hours: Column, rng: np.random.Generator) -> Column:
    """Outdoor temperature (°C): the year's and the day's cycle, and weather that passes in a day or two."""
    season = -10.0 * np.cos(2 * np.pi * (hours - COLDEST_DAY * 24) / YEAR_HOURS)
    sunshine = 4.0 + 2.0 * season / 10.0
    day = sunshine * np.cos(2 * np.pi * (hours - WARMEST_HOUR) / 24)
    fronts = _autoregressive(hours, deviation=3.5, memory_hours=36, rng=rng)
    gusts = _autoregressive(hours, deviation=0.6, memory_hours=1.5, rng=rng)
    return 12.0 + season + day + fronts + gusts


def load_factor(hours: Column, ambient: Column, rng: np.random.Generator) -> Column:
    """Load per unit of the rated current: day, week, heating and air conditioning, chance, and rare overloads."""
    hour = hours % 24
    weekend = hours // 24 % 7 >= 5
    profile = 0.36 + 0.22 * _bump(hour, 9.0, 2.6) + 0.16 * _bump(hour, 13.5, 2.8) + 0.30 * _bump(hour, 19.0, 2.4)
    heating = 0.010 * np.clip(14.0 - ambient, 0.0, None)
    conditioning = 0.018 * np.clip(ambient - 21.0, 0.0, None)
    habits = 1 + _autoregressive(hours, deviation=0.05, memory_hours=18, rng=rng)
    switching = _autoregressive(hours, deviation=0.015, memory_hours=0.6, rng=rng)
    load = profile * np.where(weekend, 0.80, 1.0) * habits + heating + conditioning + switching
    return np.clip(load * _overloads(hours, rng), 0.05, None)


def _overloads(hours: Column, rng: np.random.Generator) -> Column:
    """A factor of 1 but for the few hours in which a neighbouring transformer is out and this one takes its share."""
    factor = np.ones_like(hours)
    for _ in range(rng.poisson(OVERLOADS_PER_YEAR * hours[-1] / YEAR_HOURS)):
        start, duration = rng.uniform(0, hours[-1]), rng.uniform(2, 10)
        factor[(hours >= start) & (hours < start + duration)] = rng.uniform(1.3, 1.6)
    return factor


def _bump(hour: Column, centre: float, width: float) -> Column:
    distance = (hour - centre + 12) % 24 - 12
    return np.exp(-0.5 * (distance / width) ** 2)


def _autoregressive(hours: Column, deviation: float, memory_hours: float, rng: np.random.Generator) -> Column:
    """An AR(1) process with the given standard deviation, whose correlation falls to 1/e after `memory_hours`."""
    keep = float(np.exp(-(hours[1] - hours[0]) / memory_hours))
    shocks = rng.normal(0.0, deviation * np.sqrt(1 - keep**2), len(hours))
    values = np.empty_like(hours)
    value = rng.normal(0.0, deviation)
    for row, shock in enumerate(shocks):
        value = keep * value + shock
        values[row] = value
    return values
