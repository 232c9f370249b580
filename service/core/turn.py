"""The nouns of a batch: turns of sessions that are run together, and the groups in which many of them may come."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, Protocol, TypeVar


class Step(Protocol):
    """What the former needs to know of a step.

    The timesteps in it, when it is too late to run it, in seconds, and whether it is to have its turn for itself.
    """

    @property
    def length(self) -> int: ...

    @property
    def deadline(self) -> float: ...

    @property
    def alone(self) -> bool: ...


K = TypeVar("K", bound=Hashable)
S = TypeVar("S", bound=Step)


class Lane(IntEnum):
    SHORT = 0
    LONG = 1


@dataclass(slots=True)
class Turn(Generic[K, S]):
    """Consecutive steps of one session, to be run as one."""

    key: K
    steps: list[S]


class Group(Generic[K, S]):
    """One timestep for each of many sessions of one tenant, that came together and are answered together.

    `keys` are distinct. As steps, each would need a turn and an answer of its own. `deadline` is that of a `Step`.

    All else is the former's. `behind` counts the sessions in whose line something stands before this, and `taken` those
    of which the timestep has gone into a batch: `batch`, where all of it went into one. `before` and `next` are its
    neighbours in a succession, see `service.core.lines`. `ready` says that it waits for nothing but its turn,
    or has had it.
    """

    def __init__(self, keys: Sequence[K], deadline: float) -> None:
        self.keys = keys
        self.deadline = deadline
        self.behind = 0
        self.taken = 0
        self.ready = False
        self.batch: Batch[K, S] | None = None
        self.before: Group[K, S] | None = None
        self.next: Group[K, S] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def step(self, i: int) -> S:
        """Return the timestep of `keys[i]` as one that goes its own way from now on; always the same one."""
        raise NotImplementedError


@dataclass(slots=True)
class Part(Generic[K, S]):
    """The timesteps of a group's `keys[start:stop]`."""

    group: Group[K, S]
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def keys(self) -> Sequence[K]:
        return self.group.keys[self.start : self.stop]

    def steps(self) -> Iterator[S]:
        """Take the part to pieces, see `Group.step`."""
        return map(self.group.step, range(self.start, self.stop))

    def turns(self) -> Iterator[Turn[K, S]]:
        """Return the pieces as turns."""
        return (Turn(key, [step]) for key, step in zip(self.keys, self.steps(), strict=True))


@dataclass(slots=True, eq=False)
class Batch(Generic[K, S]):
    """Turns and parts of groups, of distinct sessions, that are run together; and steps that were too late to be.

    `sessions` is how many there are; `idle` are those of which nothing but steps that are too late was taken, and
    `late` what was taken of groups that are. `timesteps` is how many were taken out of the queue. `sent` says that
    nothing is left to be run of it.

    `again` are turns that are known to have to be made again, for whoever makes them to note. `before` is the batch in
    which there are turns of the same sessions, until it has ended, and `next` the one of which this is that. Who was
    taken before that had ended is `early`. `owed` are turns of that which are to be made again before any of this, and
    `left`, where this one has ended first, those of its own.
    """

    lane: Lane
    turns: list[Turn[K, S]] = field(default_factory=list)
    parts: list[Part[K, S]] = field(default_factory=list)
    expired: list[S] = field(default_factory=list)
    late: list[Part[K, S]] = field(default_factory=list)
    idle: list[K] = field(default_factory=list)
    sessions: int = 0
    timesteps: int = 0
    sent: bool = False
    again: list[Turn[K, S]] = field(default_factory=list)
    before: "Batch[K, S] | None" = None
    next: "Batch[K, S] | None" = None
    early: bool = False
    owed: dict[K, Turn[K, S]] = field(default_factory=dict)
    left: list[Turn[K, S]] | None = None
