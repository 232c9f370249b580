"""Numbers for sessions."""

from collections.abc import Sequence
from sys import intern

import numpy as np
from numpy.typing import NDArray

from service.core.session import SessionKey

_NONE: dict[str, int] = {}


class _Tenants(dict[str, dict[str, int]]):
    """The sessions of each tenant by their ids, and none of a stranger's."""

    def __missing__(self, tenant: str) -> dict[str, int]:
        return _NONE


class Index:
    """A number for each session, from 0 on; a number that has come free is given to the next one.

    Among a million sessions most of a look-up is waiting for memory, one object after the other. So a tenant's sessions
    have a dictionary of their own: that of strings leads to the string itself, that of tuples to the tuple first, and
    then to it. The garbage collector has nothing to follow here.
    """

    def __init__(self) -> None:
        self._numbers = _Tenants()
        self._tenants: list[str] = []
        self._ids: list[str] = []
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._ids) - len(self._free)

    def get(self, key: SessionKey) -> int | None:
        tenant, session_id = key
        return self._numbers[tenant].get(session_id)

    def numbers(self, keys: Sequence[SessionKey]) -> NDArray[np.int64]:
        """Return the numbers of sessions, -1 for those that have none."""
        of = self._numbers
        return np.fromiter([of[tenant].get(session_id, -1) for tenant, session_id in keys], np.int64, len(keys))

    def add(self, key: SessionKey) -> int:
        """Give a number to a session that has none."""
        if not self._free:
            self._free.append(len(self._ids))
            self._tenants.append("")
            self._ids.append("")
        number = self._free.pop()
        self._give(number, key)
        return number

    def remove(self, number: int) -> None:
        """Take a number from its session."""
        self._take(number)
        self._tenants[number] = self._ids[number] = ""
        self._free.append(number)

    def pass_on(self, number: int, key: SessionKey) -> None:
        """Give a session's number to another one, which has none."""
        self._take(number)
        self._give(number, key)

    def _give(self, number: int, key: SessionKey) -> None:
        self._tenants[number] = tenant = intern(key.tenant)
        self._ids[number] = key.session_id
        self._numbers.setdefault(tenant, {})[key.session_id] = number

    def _take(self, number: int) -> None:
        tenant = self._tenants[number]
        sessions = self._numbers[tenant]
        del sessions[self._ids[number]]
        if not sessions:
            del self._numbers[tenant]
