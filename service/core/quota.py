"""How many sessions a tenant may have.

Sessions end by themselves, and each step puts that off; to count them along with that would cost every step something.
So each session takes a place, with a time at which to look whether it is still there, and nobody looks before a tenant
that has no place left asks for one.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from service.core.session import SessionKey

BEING_MADE_S = 60
"""When to look at a place whose session is being made. No attempt to make one takes longer; one may break off."""

LOOK_WITHIN_S = 3600
"""At most so long after a look, or after its session was made, a place is looked at again."""

LOOK_AT_ONCE = 64
"""Places that are looked at in one go: that many sessions are read."""


class Place(NamedTuple):
    """A place that is due to be looked at. `look_at` is by the clock of those who keep it, and tells one time from
    another."""

    session_id: str
    look_at: float


class Look(NamedTuple):
    """What a look at a place has found: in how many seconds to look again, or None where the session is gone."""

    place: Place
    again_in_s: int | None


class Places(Protocol):
    """The places that the sessions of each tenant take, the same for all processes of a service.

    Each method is one step that nothing comes in between, and raises `Unavailable`. Of what it has done then nothing
    is lost but time: a place is looked at sooner or later.
    """

    async def take(self, key: SessionKey, limit: int) -> list[Place] | None:
        """Take a place for a session that is being made, of `limit` that its tenant has.

        Returns None where it has one now, or had. Otherwise all are taken, and it returns those that are due, at most
        `LOOK_AT_ONCE`, the longest overdue first.
        """
        ...

    async def keep(self, key: SessionKey, look_in_s: int) -> None:
        """Be told that a session is there and has a place, whatever was known of it."""
        ...

    async def release(self, key: SessionKey) -> None:
        """Be told that a session was deleted: its place is due, before all others.

        Where one of that name is being made, this changes nothing.
        """
        ...

    async def give_up(self, key: SessionKey) -> None:
        """Be told that nothing came of a session for which a place was taken: it is due, before all others.

        Where another one of that name is being made, this changes nothing: the place is due when its time has come.
        """
        ...

    async def settle(self, tenant: str, looks: Sequence[Look]) -> None:
        """Be told what was found at places that were due; of those that have changed since, nothing is believed."""
        ...
