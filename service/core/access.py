"""Who asks, and what they may do."""

import re
from enum import StrEnum
from typing import NamedTuple

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

    `tenant` is whose sessions these are; `name` says which of the tenant's keys or subjects it was, for logs and
    limits.
    """

    tenant: str
    name: str
    scopes: frozenset[Scope]


ANYBODY = Principal("default", "anybody", frozenset(Scope))
"""Everybody, where nobody has to say who they are."""
