"""The batch former: which steps of which sessions go into the next batch.

A pure state machine. It holds no clock and starts nothing: the engine hands it steps and the time, and asks.

- Within a session, steps keep their order, and at most one turn of it is in flight.
- A turn takes as many consecutive steps of its session as `max_turn` timesteps allow, and at least one.
- Sessions take turns in the order in which they became ready. One that has more to do goes to the end of the line
  after each turn, so nobody starves.
- A step that is `alone` shares its turn with no other.
- Steps that are too late take no place in a batch.
- Long turns (more than `long_turn` timesteps) travel in batches of their own, beside the short ones, so that a chunk
  of hundreds of timesteps holds up no single step. Each of the two lanes has at most one batch in flight.
"""

from collections import deque
from collections.abc import Hashable, Iterable
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


@dataclass(slots=True)
class Batch(Generic[K, S]):
    """Turns of distinct sessions that are run together, and the steps that were found too late to run."""

    lane: Lane
    turns: list[Turn[K, S]]
    expired: list[S] = field(default_factory=list)


class BatchFormer(Generic[K, S]):
    """See the module. `waiting` is the count of timesteps that were added and not yet taken."""

    def __init__(self, *, max_sessions: int, max_turn: int = 64, long_turn: int = 64) -> None:
        self._max_sessions = max_sessions
        self._max_turn = max_turn
        self._long_turn = long_turn
        # A session's waiting steps. It has a line, if an empty one, as long as a turn of it is in flight.
        self._lines: dict[K, list[S]] = {}
        self._ready: list[deque[K]] = [deque() for _ in Lane]
        self._in_flight: set[Lane] = set()
        self.waiting = 0

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is in flight."""
        return not self._lines and not self._in_flight

    def add(self, key: K, step: S) -> None:
        """Put a step behind the session's others."""
        line = self._lines.get(key)
        if line is None:
            self._lines[key] = [step]
            self._ready[self._lane(step)].append(key)
        else:
            line.append(step)
        self.waiting += step.length

    def take(self, now: float) -> Batch[K, S] | None:
        """Form a batch from what is ready, or return None where nothing is or all lanes are in flight."""
        for lane in Lane:
            if self._ready[lane] and lane not in self._in_flight:
                self._in_flight.add(lane)
                return self._form(lane, now)
        return None

    def steps(self) -> list[S]:
        """Return all that waits."""
        return [step for line in self._lines.values() for step in line]

    def abandon(self) -> list[S]:
        """Forget all that waits, and return it. Nothing may be in flight."""
        waiting = self.steps()
        self._lines.clear()
        for ready in self._ready:
            ready.clear()
        self.waiting = 0
        return waiting

    def done(self, batch: Batch[K, S], again: Iterable[Turn[K, S]] = ()) -> None:
        """Say that a batch has ended. Turns in `again` have not, and are the first to be taken next."""
        self._in_flight.remove(batch.lane)
        repeated = {turn.key: turn for turn in again}
        for turn in batch.turns:
            line = self._lines[turn.key]
            if (repeat := repeated.get(turn.key)) is not None:
                line[:0] = repeat.steps
                self.waiting += sum(step.length for step in repeat.steps)
                self._ready[self._lane(line[0])].appendleft(turn.key)
            elif line:
                self._ready[self._lane(line[0])].append(turn.key)
            else:
                del self._lines[turn.key]

    def _form(self, lane: Lane, now: float) -> Batch[K, S]:
        ready = self._ready[lane]
        batch: Batch[K, S] = Batch(lane, [])
        while ready and len(batch.turns) < self._max_sessions:
            key = ready.popleft()
            if steps := self._next_steps(self._lines[key], now, batch.expired):
                batch.turns.append(Turn(key, steps))
            else:
                del self._lines[key]
        return batch

    def _next_steps(self, line: list[S], now: float, expired: list[S]) -> list[S]:
        taken: list[S] = []
        length = gone = 0
        for step in line:
            if step.deadline < now:
                expired.append(step)
            elif taken and (length + step.length > self._max_turn or step.alone or taken[0].alone):
                break
            else:
                taken.append(step)
                length += step.length
            self.waiting -= step.length
            gone += 1
        del line[:gone]
        return taken

    def _lane(self, first: S) -> Lane:
        return Lane.LONG if first.length > self._long_turn else Lane.SHORT
