"""Whether the records that a process remembers are worth being run on.

Where another process has stepped a session since, a remembered record is out of date: the run on it is thrown away, its
commit loses, and the step is run once more. To read a session first costs less than that, and more than a remembered
record that is still the latest.
"""

BREAK_EVEN = 0.3
_ENOUGH = 100.0


class Trust:
    """Weighs how many remembered records turned out to be out of date. `holds` says whether they are worth it.

    It is a cumulative sum, of sessions: a record that was out of date adds one, and `BREAK_EVEN` is taken off for each
    step. It rises where more of them are out of date than that, and falls where fewer are. Trust ends at `_ENOUGH` and
    comes back at 0; between the two it stays as it is.
    """

    __slots__ = ("_doubt", "holds")

    def __init__(self) -> None:
        self.holds = True
        self._doubt = 0.0

    def weigh(self, outdated: int, steps: int) -> None:
        """Take into account that for so many steps so many remembered records were out of date.

        A step that lost is written in the end: it is one step, which is told of when it is written.
        """
        self._doubt = min(max(self._doubt + outdated - BREAK_EVEN * steps, 0.0), _ENOUGH)
        if self.holds:
            self.holds = self._doubt < _ENOUGH
        else:
            self.holds = self._doubt == 0.0
