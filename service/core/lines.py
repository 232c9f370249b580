"""What waits for each session, in its order.

A session has a line, if an empty one, while a turn of it is in flight or ready, or a group has it. A group stands in
the line of each of its sessions that has one.

Groups of the same sessions that come one right behind the other, as a gateway's messages do, are a succession: nothing
stands in anybody's line between the two, so the second waits for the first, and in no line. Only a group that stays in
one piece has a `next`.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Generic, cast

from service.core.turn import Group, K, S

Line = list[S | Group[K, S]]

_NOTHING = cast("list[Any]", ())
"""The line of a session that came with a group, in which nothing stands. One for all of them: it cannot be changed."""


class Lines(Generic[K, S]):
    """See the module."""

    def __init__(self) -> None:
        self._lines: dict[K, Line[S, K]] = {}
        self._last: dict[int, Group[K, S]] = {}
        """The last group of the same sessions that has not ended, if it is in one piece, by the identity of these."""

    def __bool__(self) -> bool:
        return bool(self._lines)

    def __getitem__(self, key: K) -> Line[S, K]:
        """Return what stands in a session's line, to be taken out of it."""
        return self._lines[key]

    def steps(self) -> Iterator[S]:
        """Return the steps that wait; those of groups do not count as such."""
        return (step for line in self._lines.values() for step in line if not isinstance(step, Group))

    def add(self, key: K, step: S) -> bool:
        """Put a step behind the session's others. Returns whether it is the only one."""
        line = self._lines.get(key)
        self._append(key, line, step)
        return line is None

    def add_group(self, group: Group[K, S]) -> bool:
        """Put a group behind what else its sessions have to do. Returns whether that is nothing."""
        lines, keys = self._lines, group.keys
        before = self._last.get(id(keys))
        self._last[id(keys)] = group
        if before is not None and self._nothing_stands_behind(before):
            before.next, group.before = group, before
            return False
        if lines.keys().isdisjoint(keys):
            lines.update(dict.fromkeys(keys, _NOTHING))
            return True
        for key in keys:
            if (line := lines.get(key)) is None:
                lines[key] = _NOTHING
            else:
                self._append(key, line, group)
                group.behind += 1
        return not group.behind

    def end(self, keys: Sequence[K]) -> Sequence[Line[S, K]]:
        """End the lines of sessions; return what is left in each."""
        return list(map(self._lines.pop, keys))  # nearly always nothing: at a fraction of what it costs to look at each

    def go_on(self, key: K, line: Line[S, K]) -> None:
        """Give a session a line again."""
        self._lines[key] = line

    def end_succession(self, group: Group[K, S]) -> None:
        """Let nothing stand behind a group as a whole that has been added: it ends, or does not stay in one piece."""
        if (following := group.next) is not None:
            group.next = following.before = None
            for key in following.keys:
                # In front: who came by themselves came later.
                self._lines[key] = [following, *self._lines[key]]
                following.behind += 1
        elif self._last.get(id(group.keys)) is group:
            del self._last[id(group.keys)]

    def clear(self) -> None:
        self._lines.clear()
        self._last.clear()

    def _nothing_stands_behind(self, group: Group[K, S]) -> bool:
        lines = list(map(self._lines.__getitem__, group.keys))
        if not any(lines):
            return True
        first = group  # of a succession, which alone stands in lines
        while first.before is not None:
            first = first.before
        return all(not line or line[-1] is first for line in lines)

    def _append(self, key: K, line: Line[S, K] | None, entry: S | Group[K, S]) -> None:
        """Put something into a session's line, which may be none yet, or the one that cannot be changed."""
        if line:
            line.append(entry)
        else:
            self._lines[key] = [entry]
