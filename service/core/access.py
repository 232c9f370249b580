"""Who asks, and what they may do."""

import re
from enum import StrEnum
from typing import NamedTuple, Protocol

TENANT = re.compile(r"[A-Za-z0-9._~@-]{1,64}")
"""What a tenant may be called. A colon ends its name in the names of its sessions' keys, and so is never part of it."""


class Scope(StrEnum):
    """What somebody may do."""

    STEP = "step"
    """Advance sessions and read their outputs."""
    SESSIONS = "sessions"
    """Open, list, read, fork, reset, restore and delete sessions."""
    MODELS = "models"
    """Manage models; to read what is served needs no scope."""
    METRICS = "metrics"
    """Read the metrics of the process, which are of all tenants."""


class Principal(NamedTuple):
    """Somebody who has said who they are.

    `tenant` is whose sessions these are; `name` says which of the tenant's keys or subjects it was, for people.
    `credential` is the public id of what proved it: of an API key, or of the key that signed a token. `expires_at` is
    until when that holds, in Unix seconds, or None for as long as it is not withdrawn. `rate` (per second) and `burst`
    are the limits that were given to this one, where it has its own.
    """

    tenant: str
    name: str
    scopes: frozenset[Scope]
    rate: float | None = None
    burst: int | None = None
    credential: str = ""
    expires_at: float | None = None


class Authenticator(Protocol):
    """Knows whom a credential belongs to. A credential is what stands behind `Bearer`, an API key or a token."""

    def known(self, credential: bytes) -> Principal | None:
        """Return whose it is where that can be told in microseconds; None where it takes `authenticate`.

        Raises `Unauthenticated`.
        """
        ...

    async def authenticate(self, credential: bytes) -> Principal:
        """Return whose it is. Raises `Unauthenticated`, and `Unavailable` where nobody can tell at the moment."""
        ...

    def holds(self, principal: Principal) -> bool:
        """Whether what somebody once proved still holds: not expired, not withdrawn."""
        ...


class Refreshable(Authenticator, Protocol):
    """An authenticator whose knowledge grows old."""

    async def refresh(self) -> None:
        """Take notice of what has changed. Where that fails, what was known stays, and nothing is raised."""
        ...


STRANGER = Principal("", "stranger", frozenset())
"""Who has not said who they are, where others have to. Has no sessions: no tenant's name is empty."""

ANYBODY = Principal("default", "anybody", frozenset(Scope))
"""Everybody, where nobody has to say who they are."""
