"""What the engine needs from the outside, as protocols: a store, models, somebody who watches.

Each has a contract suite in ``tests/contracts`` that every adapter passes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from service.core.columns import Floats
from service.core.errors import ConveyorError
from service.core.session import ModelRef, Session, SessionKey
from service.core.spec import ModelSpec

Clock = Callable[[], float]
"""Monotonic, in seconds."""


class Commit(NamedTuple):
    """Replace the record under `key` by `record`, if the one there still has `version` at `record.VERSION_SLICE`."""

    key: SessionKey
    version: bytes
    record: bytes


class Lost(NamedTuple):
    """A commit came too late: `current` is the record that the store holds, None where the session is gone."""

    current: bytes | None


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a listing, by session id. `cursor` asks for the next part; None when this was the last."""

    sessions: list[tuple[str, Session]]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """What keeps the state, in words, and what an operator should know of it."""

    description: str
    warnings: list[str] = field(default_factory=list)


class StateStore(Protocol):
    """Keeps sessions' records (see `service.core.record`) until they expire, without looking into their numbers.

    Every method raises `StoreUnavailable` when the store cannot be reached and certainly nothing was changed, and
    `OutcomeUnknown` when it may have been.
    """

    async def load(self, keys: Sequence[SessionKey]) -> Sequence[bytes | ConveyorError | None]:
        """Return each key's record, whatever it holds, or None where there is none.

        Where a store is several servers and one of them cannot be reached, its sessions get `StoreUnavailable` here.
        """
        ...

    async def commit(self, commits: Sequence[Commit]) -> list[Lost | ConveyorError | None]:
        """Replace many records at once, each on its own terms. Keys must be distinct.

        Returns per commit None where it was made, `Lost` where another was faster, or the error (`StoreFull`,
        `StoreUnavailable`) for which the session keeps its old value, or `OutcomeUnknown`. A commit made earlier by
        the same writer (known by its nonce) counts as made. `MovedOn` speaks of a record that is as safe as any that is
        told to be written.
        """
        ...

    def prefetch(self, keys: Sequence[SessionKey]) -> None:
        """Be told that these sessions are about to be written. Nothing depends on it; a store may do nothing.

        Never waits, and never raises.
        """
        ...

    async def create(self, key: SessionKey, record: bytes) -> bytes | None:
        """Keep a record under a key that is free. Returns None, or the record that is there already.

        Raises `StoreFull` where the store has no memory left for it.
        """
        ...

    async def delete(self, key: SessionKey) -> bool:
        """Forget a session; return whether there was one."""
        ...

    async def scan(self, tenant: str, model: str | None, cursor: str | None, limit: int) -> Page:
        """List a tenant's sessions in no particular order, at most `limit` of them, those of one model or all.

        A session that exists during the whole listing is in it, perhaps twice; one that cannot be read is not. Raises
        `InvalidInput` for a cursor that this store did not hand out.
        """
        ...

    async def health(self) -> StoreHealth: ...

    async def close(self) -> None: ...


class Model(Protocol):
    """A recurrent model, ready to run. Rows do not influence each other."""

    @property
    def ref(self) -> ModelRef: ...

    @property
    def spec(self) -> ModelSpec: ...

    def run(self, x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """Advance `batch` sessions by `time` timesteps. May be called from any thread.

        `x` is (batch, time, features) in raw units and `state` (batch, `spec.state_size`), both float32 and
        C-contiguous with no axis of length 0. Returns the outputs (batch, time, `spec.output_size`) and the next
        state (batch, `spec.state_size`), C-contiguous. Raises `ModelFailed`.
        """
        ...

    def seconds(self, batch: int, time: int) -> float:
        """Return about how long such a run takes here, in seconds, as measured at warm-up."""
        ...


@dataclass(frozen=True, slots=True)
class Failure:
    """A model that cannot be served: its place, and why."""

    path: str
    reason: str


class Models(Protocol):
    """The models that are being served. `failures` are those that cannot be."""

    @property
    def failures(self) -> Sequence[Failure]: ...

    def __iter__(self) -> Iterator[Model]: ...

    def versions(self, name: str) -> Mapping[str, Model]:
        """Return a model's versions, the latest last. Raises `ModelNotFound`."""
        ...

    def find(self, name: str, version: str | None = None) -> Model:
        """Return a model by name; without a version, its latest. Raises `ModelNotFound`."""
        ...

    def holding(self, ref: ModelRef) -> Model:
        """Return the very file that computed a state. Raises `ModelMismatch` where another or none is served."""
        ...


class Observer(Protocol):
    """Is told what happens, for metrics. Must be quick and never raise."""

    def batch(self, model: ModelRef, sessions: int) -> None:
        """A run of one model was made for so many sessions."""

    def stage(self, stage: str, seconds: float) -> None:
        """A batch spent so long in one of ``queue`` (its longest-waiting step), ``read``, ``run``, ``commit``."""

    def cache(self, hits: int, misses: int) -> None: ...

    def steps(self, model: ModelRef, timesteps: int) -> None:
        """So many timesteps of sessions of a model were committed."""

    def replayed(self) -> None: ...

    def conflict(self) -> None:
        """A commit lost against another writer's and is made anew."""

    def refused(self, code: str, steps: int = 1) -> None:
        """Steps ended in an error."""
