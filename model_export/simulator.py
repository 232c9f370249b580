"""An oil-immersed power transformer: load and ambient temperature in, top-oil and hot-spot temperature out.

The model is that of IEC 60076-7, "Loading guide for oil-immersed power transformers", clause 8.2 and Annex C: three
first-order differential equations, driven by the load factor K (per unit of the rated current) and the ambient
temperature θa (°C), with time in minutes:

    k11 τo dθo/dt  = Δθor ((1 + R K²) / (1 + R))^x − (θo − θa)        top oil, θo in °C
    k22 τw dΔ1/dt  = k21 Δθhr K^y − Δ1                                winding over oil, K
    (τo/k22) dΔ2/dt = (k21 − 1) Δθhr K^y − Δ2                         the oil's delay along the winding, K
    θh = θo + Δ1 − Δ2                                                 hot spot, °C

Δθor and Δθhr are the rises of the top oil over ambient and of the hot spot over the top oil at rated current (K), R is
load loss over no-load loss at rated current, x and y are the oil and winding exponents, τo and τw the time constants
(minutes), k11, k21 and k22 constants of the construction. After a step of the load Δ1 rises before Δ2 does, which is
why the hot spot overshoots.

Annex C takes finite differences with a step well below τw. Here the inputs are held between two samples, where the
equations are linear and have an exact solution, x(t + Dt) = x∞ + (x(t) − x∞) exp(−Dt/τ), so that any step is right.

Constants are those of Table 5 for medium and large power transformers, ONAN and ONAF. Cooling has three stages; each is
rated for a part of the nameplate current, and K, R and the rises are taken relative to that.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model_export.errors import InputError
from model_export.scenario import ambient_temperature, load_factor

Column = NDArray[np.float64]

UNITS = {
    "load": "p.u.",
    "ambient": "°C",
    "top_oil": "°C",
    "hot_spot": "°C",
    "cooling_stage": "",
    "hour_sin": "",
    "hour_cos": "",
    "weekend": "",
}
START = datetime(2023, 1, 2)
PERIOD_MINUTES = 15
# Standard deviations of the instruments: current transformer (p.u.), thermometers and fibre-optic probe (K).
NOISE = {"load": 0.005, "ambient": 0.2, "top_oil": 0.2, "hot_spot": 0.3}


@dataclass(frozen=True)
class Cooling:
    """One cooling stage. `rating` is its rated current per unit of the nameplate's; rises and constants hold there."""

    rating: float
    top_oil_rise: float
    hot_spot_gradient: float
    tau_oil: float
    tau_winding: float
    on_above: float
    off_below: float


ONAN = Cooling(0.60, 50.0, 17.0, 210.0, 10.0, -np.inf, -np.inf)
ONAF_HALF = Cooling(0.80, 48.0, 20.0, 180.0, 8.0, 55.0, 48.0)
ONAF = Cooling(1.00, 46.0, 24.0, 150.0, 7.0, 63.0, 56.0)


@dataclass(frozen=True)
class Transformer:
    """The constants of one transformer; see the module's equations. `loss_ratio` is R at the nameplate current."""

    stages: tuple[Cooling, ...] = (ONAN, ONAF_HALF, ONAF)
    loss_ratio: float = 6.0
    oil_exponent: float = 0.8
    winding_exponent: float = 1.3
    k11: float = 0.5
    k21: float = 2.0
    k22: float = 2.0

    def oil_rise(self, load: float, stage: int) -> float:
        """Top oil over ambient (K) once `load` has lasted."""
        cooling = self.stages[stage]
        ratio = self.loss_ratio * cooling.rating**2
        factor = (1 + ratio * (load / cooling.rating) ** 2) / (1 + ratio)
        return float(cooling.top_oil_rise * factor**self.oil_exponent)

    def winding_rise(self, load: float, stage: int) -> float:
        """Hot spot over top oil (K) once `load` has lasted."""
        cooling = self.stages[stage]
        return float(cooling.hot_spot_gradient * (load / cooling.rating) ** self.winding_exponent)

    def settled(self, load: float, ambient: float, stage: int = 0) -> "Thermal":
        """The state in which `load` and `ambient` would stay as they are."""
        rise = self.winding_rise(load, stage)
        return Thermal(ambient + self.oil_rise(load, stage), self.k21 * rise, (self.k21 - 1) * rise, stage)

    def step(self, state: "Thermal", load: float, ambient: float, minutes: float) -> "Thermal":
        """The state after `minutes` at a constant load (p.u. of the nameplate) and ambient temperature (°C)."""
        cooling = self.stages[state.stage]
        rise = self.winding_rise(load, state.stage)
        top_oil = _approach(
            state.top_oil, ambient + self.oil_rise(load, state.stage), minutes / (self.k11 * cooling.tau_oil)
        )
        fast = _approach(state.fast, self.k21 * rise, minutes / (self.k22 * cooling.tau_winding))
        slow = _approach(state.slow, (self.k21 - 1) * rise, minutes * self.k22 / cooling.tau_oil)
        return Thermal(top_oil, fast, slow, self._switched(state.stage, top_oil))

    def _switched(self, stage: int, top_oil: float) -> int:
        """The stage after its thermostat, which has a hysteresis so that the fans do not chatter."""
        if stage + 1 < len(self.stages) and top_oil > self.stages[stage + 1].on_above:
            return stage + 1
        return stage - 1 if top_oil < self.stages[stage].off_below else stage


@dataclass(frozen=True)
class Thermal:
    """State of the three equations: θo (°C), Δ1 and Δ2 (K), and the cooling stage that is on."""

    top_oil: float
    fast: float
    slow: float
    stage: int = 0

    @property
    def hot_spot(self) -> float:
        return self.top_oil + self.fast - self.slow


def _approach(value: float, target: float, elapsed: float) -> float:
    """First-order approach to `target` after `elapsed` time constants."""
    return float(target + (value - target) * np.exp(-elapsed))


@dataclass(frozen=True)
class Simulation:
    """What the instruments of one transformer have recorded, a row per `PERIOD_MINUTES`; see `UNITS` for columns."""

    columns: dict[str, Column]
    start: datetime = START

    @cached_property
    def times(self) -> list[datetime]:
        return [self.start + timedelta(minutes=PERIOD_MINUTES * row) for row in range(len(self.columns["load"]))]


def simulate(days: int, seed: int, transformer: Transformer | None = None) -> Simulation:
    """`days` of a transformer's life from `START` on; the same seed gives the same numbers.

    Raises `InputError` when `days` is below 1.
    """
    if days < 1:
        raise InputError(f"days: {days} is below 1")
    transformer = transformer or Transformer()
    rng = np.random.default_rng(seed)
    hours = np.arange(days * 24 * 60 // PERIOD_MINUTES, dtype=np.float64) * (PERIOD_MINUTES / 60)
    ambient = ambient_temperature(hours, rng)
    load = load_factor(hours, ambient, rng)
    state = transformer.settled(load[0], ambient[0])
    states = []
    for k, theta in zip(load, ambient, strict=True):
        states.append(state)
        state = transformer.step(state, float(k), float(theta), PERIOD_MINUTES)
    truth = {
        "load": load,
        "ambient": ambient,
        "top_oil": np.array([state.top_oil for state in states]),
        "hot_spot": np.array([state.hot_spot for state in states]),
    }
    measured = {name: np.round(values + rng.normal(0, NOISE[name], len(hours)), 4) for name, values in truth.items()}
    stages = np.array([state.stage for state in states], dtype=float)
    return Simulation({**measured, "cooling_stage": stages, **_calendar(hours)})


def _calendar(hours: Column) -> dict[str, Column]:
    angle = 2 * np.pi * (hours % 24) / 24
    return {
        "hour_sin": np.round(np.sin(angle), 6) + 0.0,
        "hour_cos": np.round(np.cos(angle), 6) + 0.0,
        "weekend": (hours // 24 % 7 >= 5).astype(float),
    }
