"""The lobby: who waits to be let in, while more is sent to a process than it can do.

A pure data structure. What is in it has been read and not yet looked into, one message of a connection at most. So the
connections themselves are its bound.

- Tenants take turns.
- Those who may be refused, requests, are let in *newest first*, and refused *oldest first*. In the order of arrival all
  would wait for as long as it takes to serve all connections, however many there are; so those who are let in have
  waited briefly, and the others are told.
- Those who may not be refused, messages of sockets, are let in in the order in which they came.
- Of one tenant's, one of each kind is let in in turn.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
"""A tenant."""
R = TypeVar("R")
"""Who may be refused."""
L = TypeVar("L")
"""Who may not."""


class _Line(Generic[R, L]):
    """A tenant's: both kinds in the order of their arrival."""

    __slots__ = ("lasting", "refusable", "refusable_next")

    def __init__(self) -> None:
        self.refusable: OrderedDict[R, None] = OrderedDict()
        self.lasting: OrderedDict[L, None] = OrderedDict()
        self.refusable_next = False

    def __len__(self) -> int:
        return len(self.refusable) + len(self.lasting)

    def pop(self) -> R | L:
        if self.refusable and (self.refusable_next or not self.lasting):
            self.refusable_next = False
            return self.refusable.popitem()[0]
        self.refusable_next = True
        return self.lasting.popitem(last=False)[0]


class Lobby(Generic[T, R, L]):
    """See the module. Nobody is in it twice: who waits already goes on waiting where they are."""

    def __init__(self) -> None:
        self._lines: OrderedDict[T, _Line[R, L]] = OrderedDict()  # the first is the next to have its turn
        self._refusable: OrderedDict[R, T] = OrderedDict()
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def ask(self, tenant: T, who: R) -> None:
        """Let somebody wait who may be refused."""
        line = self._line(tenant)
        self._waiting += who not in line.refusable
        line.refusable[who] = None
        self._refusable[who] = tenant

    def wait(self, tenant: T, who: L) -> None:
        """Let somebody wait who may not be refused."""
        line = self._line(tenant)
        self._waiting += who not in line.lasting
        line.lasting[who] = None

    def leave(self, tenant: T, who: R | L) -> None:
        """Take somebody out who waits no more, or is not there any longer."""
        line = self._lines.get(tenant)
        if line is None:
            return
        before = len(line)
        line.refusable.pop(who, None)  # type: ignore[arg-type]
        line.lasting.pop(who, None)  # type: ignore[arg-type]
        if len(line) < before:
            self._refusable.pop(who, None)  # type: ignore[arg-type]
            self._left(tenant, line)

    def next(self, may_enter: Callable[[T], bool]) -> tuple[T, R | L] | None:
        """Take out who is to be let in next, of the tenants who may enter; None where that is nobody."""
        for tenant in list(self._lines):
            line = self._lines[tenant]
            self._lines.move_to_end(tenant)
            if may_enter(tenant):
                who = line.pop()
                self._refusable.pop(who, None)  # type: ignore[arg-type]
                self._left(tenant, line)
                return tenant, who
        return None

    def oldest(self) -> R | None:
        """Take out who is to be refused next, or None where nobody may be."""
        if not self._refusable:
            return None
        who, tenant = self._refusable.popitem(last=False)
        line = self._lines[tenant]
        del line.refusable[who]
        self._left(tenant, line)
        return who

    def _line(self, tenant: T) -> _Line[R, L]:
        line = self._lines.get(tenant)
        if line is None:
            line = self._lines[tenant] = _Line()
        return line

    def _left(self, tenant: T, line: _Line[R, L]) -> None:
        self._waiting -= 1
        if not line:
            del self._lines[tenant]
