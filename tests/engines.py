"""What the tests of the engine share: a store to look into, steps to send, what became of them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from service.adapters.memory_store import MemoryStore
from service.core.errors import (
    ConveyorError,
)
from service.core.ports import Commit, Lost
from service.core.session import Result, SessionKey, Timestep
from service.engine import Engine
from service.frame import Frame
from service.sessions import Sessions

MODELS = Path(__file__).parent.parent / "models"
X = [0.7, 12.0, 54.0, 76.0, 1.0, 0.0, 1.0, 0.0]


class CountingStore(MemoryStore):
    """The in-process store, counting its exchanges, which can be made to fail or to take their time."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[int] = []
        self.commits: list[int] = []
        self.failure: Exception | None = None
        self.failures: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived = asyncio.Event()

    async def load(self, keys: Sequence[SessionKey]) -> list:  # type: ignore[type-arg]
        self.loads.append(len(keys))
        return await super().load(keys)

    async def commit(self, commits: Sequence[Commit]) -> list[Lost | ConveyorError | None]:
        self.commits.append(len(commits))
        self.arrived.set()
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        if self.failure is not None:
            raise self.failure
        return await super().commit(commits)


class Twin(SessionKey):
    """A session whose hash is that of all others of this class."""

    def __hash__(self) -> int:
        return 7


def key(name: object = "pump") -> SessionKey:
    return SessionKey("t", str(name))


def one(step: int | None = None, *, shift: float = 0.0) -> Timestep:
    return Timestep([X[0] + shift, *X[1:]], 1, step)


def chunk(length: int, step: int | None = None) -> Timestep:
    return Timestep([X] * length, length, step)


async def outcomes(engine: Engine, *steps: Timestep, of: SessionKey | None = None) -> list[Result | BaseException]:
    return await asyncio.gather(*(engine.submit(of or key(), step) for step in steps), return_exceptions=True)


async def opened(sessions: Sessions, *names: str, ttl_s: int | None = None) -> None:
    """Open sessions of the demo model."""
    for name in names:
        await sessions.open(key(name), "hotspot", ttl_s=ttl_s)


def told(frame: Frame) -> list[Result | ConveyorError]:
    """Return what became of each timestep of a frame that has ended."""
    found: dict[int, Result | ConveyorError] = dict(frame.outcomes)
    for start, steps, outputs in frame.answers:
        for row, step in enumerate(steps):
            assert start + row not in found, "each ends once"
            found[start + row] = Result(step, {name: output[row] for name, output in outputs.items()})
    return [found[i] for i in range(len(frame))]


async def ended(frame: Frame) -> list[Result | ConveyorError]:
    """Return what became of each of a frame's timesteps."""
    await asyncio.wait_for(asyncio.shield(frame.ended), 10)
    return told(frame)
