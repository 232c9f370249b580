"""Whether the records that a process remembers are worth being run on.

Where another process has stepped a session since, a remembered record is out of date: the run on it is thrown away, its
commit loses, and the step is run once more. To read a session first costs less than that, and more than a remembered
record that is still the latest.
"""

BREAK_EVEN = 5
"""Where one in so many records is out of date, both ways cost the same. Processor time of the service and of Redis for
a step in frames, in µs: 36 on a record that is the latest, 47 on one that is read first, 97 on one that is out of date.
So (97 - 36) / (47 - 36) = 5.5, docs/decisions/0477."""
_ENOUGH = 100 * BREAK_EVEN
"""Where all records are out of date, 125 steps find out; where none is, 500 comparisons do."""


class Trust:
    """Weighs how many remembered records turned out to be out of date. `holds` says whether they are worth it.

    It is a cumulative sum: a record that was out of date adds `BREAK_EVEN`, and each step takes one off. It rises where
    more than one in so many are out of date, and falls where fewer are. Trust ends at `_ENOUGH` and comes back at 0;
    between the two it stays as it is.
    """

    __slots__ = ("_doubt", "holds")

    def __init__(self) -> None:
        self.holds = True
        self._doubt = 0

    def weigh(self, outdated: int, steps: int) -> None:
        """Take into account that for so many steps so many remembered records were out of date.

        A step that lost is written in the end: it is one step, which is told of when it is written.
        """
        self._doubt = min(max(self._doubt + BREAK_EVEN * outdated - steps, 0), _ENOUGH)
        if self.holds:
            self.holds = self._doubt < _ENOUGH
        else:
            self.holds = self._doubt == 0
