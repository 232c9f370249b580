"""What the routes are served with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Protocol, TypedDict

from fastapi import Depends
from starlette.requests import HTTPConnection
from starlette.types import Scope as ASGIScope

from service.api.moulds import Moulds
from service.core.access import ANYBODY, Principal, Refreshable, Scope
from service.core.errors import ConveyorError, Forbidden
from service.core.ports import Models, StateStore
from service.core.roster import Rosters
from service.core.session import SessionKey
from service.core.tickets import Tickets
from service.engine import Engine
from service.rates import Rates
from service.sessions import Sessions

PRINCIPAL = "conveyor.principal"
"""Where an ASGI scope says who asks."""


class Stoppable(Protocol):
    """An open socket that can be told that the service is going away, or that its client may no longer be there."""

    principal: Principal
    """Who connected."""

    def dismiss(self, error: ConveyorError) -> None:
        """Answer what was asked, tell of an error, and close. Being told again changes nothing."""
        ...

    async def stop(self) -> None:
        """Answer what was asked, close, and return when that is done."""
        ...

    def abort(self) -> None:
        """End it as it is."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask for; see `service.settings.Settings`.

    `max_width` is a count of numbers beyond which no timestep can be meant for any model that is served.
    """

    max_width: int
    max_chunk: int
    max_frame_steps: int
    max_in_flight: int
    ticket_ttl_s: float


@dataclass(slots=True)
class Services:
    """The parts of a running process.

    `stopping` turns true when it has been told to stop, and `draining` when it takes nobody new.
    """

    engine: Engine
    sessions: Sessions
    models: Models
    store: StateStore
    limits: Limits
    rates: Rates
    tickets: Tickets
    exposition: Callable[[], tuple[bytes, str]]
    """Returns the metrics and their media type."""
    authenticator: Refreshable | None = None
    """Knows who asks; None where nobody has to say so."""
    rosters: Rosters = field(default_factory=Rosters)
    moulds: Moulds = field(default_factory=Moulds)
    sockets: set[Stoppable] = field(default_factory=set)
    stopping: bool = False
    draining: bool = False


class State(TypedDict):
    """The application's lifespan state."""

    services: Services


def services_of(connection: HTTPConnection) -> Services:
    services: Services = connection.scope["state"]["services"]
    return services


def principal_of(connection: HTTPConnection) -> Principal:
    """Return who asks: anybody, where nobody has to say who they are."""
    principal: Principal = connection.scope.get(PRINCIPAL, ANYBODY)
    return principal


def require(scope: ASGIScope, needed: Scope | None) -> None:
    """Raise `Forbidden` where who asks has not the scope that is needed."""
    if needed is not None and PRINCIPAL in scope and needed not in scope[PRINCIPAL].scopes:
        raise Forbidden(
            f"this needs the scope {needed.value!r}, which {scope[PRINCIPAL].name!r} does not have",
            required_scope=needed.value,
        )


def key_of(connection: HTTPConnection, session_id: str) -> SessionKey:
    """Return the key of the session that a path names, which is one of the tenant's who asks."""
    return SessionKey(principal_of(connection).tenant, session_id)


Serving = Annotated[Services, Depends(services_of)]
Caller = Annotated[Principal, Depends(principal_of)]
Key = Annotated[SessionKey, Depends(key_of)]
