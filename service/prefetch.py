"""What is about to be written is announced to the store, so that it is at hand there when it comes."""

from collections.abc import Sequence, Sized

from service.core.ports import StateStore
from service.core.session import SessionKey

MANY = 2**15
"""Sessions that a process remembers from which on a store hardly has one of them in the processor's caches: with fewer
there is nothing to gain by an announcement (docs/decisions/0480)."""

FEWEST = 16
"""Sessions of a run from which on an announcement costs less than it saves."""


class Prefetch:
    """Announces sessions while the model runs, if the store is idle then. `remembered` are all those of the process.

    It is entered by whoever waits for a commit.
    """

    def __init__(self, store: StateStore, remembered: Sized) -> None:
        self._store = store
        self._remembered = remembered
        self._writing = 0

    def announce(self, keys: Sequence[SessionKey]) -> bool:
        """Announce sessions if that is of use; return whether something is on its way to the store."""
        if len(keys) < FEWEST or self._writing or len(self._remembered) < MANY:
            return False
        self._store.prefetch(keys)
        return True

    def __enter__(self) -> None:
        self._writing += 1

    def __exit__(self, *_: object) -> None:
        self._writing -= 1
