"""Tickets: what a browser, whose WebSockets cannot send a header, shows instead of its key. Each is good for once."""

import hashlib
import json
import re
import secrets
from typing import Protocol

from service.core.access import Principal, Scope

_BYTES = 32
_FORM = re.compile(r"[A-Za-z0-9_-]{43}")


def new_ticket() -> str:
    """Return a ticket that nobody can guess: 256 random bits, in characters that a URL takes as they are."""
    return secrets.token_urlsafe(_BYTES)


def may_be_ticket(text: str) -> bool:
    """Return whether something has the form of a ticket; if not, nobody has to be asked."""
    return _FORM.fullmatch(text) is not None


def digest_of(ticket: str) -> bytes:
    """Return under what a ticket is kept: whoever reads the store cannot use what is there.

    It takes no salt and no slow hash: nobody can try 256 random bits.
    """
    return hashlib.sha256(ticket.encode()).hexdigest().encode()


def packed(bearer: Principal) -> bytes:
    """Return for whom a ticket is, as it is kept."""
    return json.dumps({**bearer._asdict(), "scopes": sorted(bearer.scopes)}).encode()


def unpacked(bearer: bytes) -> Principal:
    """The opposite of `packed`."""
    fields = json.loads(bearer)
    return Principal(**{**fields, "scopes": frozenset(map(Scope, fields["scopes"]))})


class Tickets(Protocol):
    """Keeps for whom each ticket was issued, until it is used or expires."""

    async def keep(self, digest: bytes, bearer: bytes, ttl_s: float) -> None:
        """Keep `bearer` for so many seconds. Raises `Unavailable`."""
        ...

    async def take(self, digest: bytes) -> bytes | None:
        """Return the bearer, to one caller alone of all processes; None to all others.

        Raises `StoreUnavailable`; whether the ticket is still good then, nobody knows.
        """
        ...
