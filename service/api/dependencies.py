"""What the routes are served with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Protocol, TypedDict

from fastapi import Depends
from starlette.requests import HTTPConnection

from service.core.ports import Models, StateStore
from service.core.session import SessionKey
from service.engine import Engine
from service.sessions import Sessions

TENANT = "default"
"""Every session's tenant, as long as nobody has to say who they are."""


class Stoppable(Protocol):
    """An open socket that can be told that the service is going away."""

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


@dataclass(slots=True)
class Services:
    """The parts of a running process. `draining` turns true when it has been told to stop."""

    engine: Engine
    sessions: Sessions
    models: Models
    store: StateStore
    limits: Limits
    exposition: Callable[[], tuple[bytes, str]]
    """Returns the metrics and their media type."""
    sockets: set[Stoppable] = field(default_factory=set)
    draining: bool = False


class State(TypedDict):
    """The application's lifespan state."""

    services: Services


def services_of(connection: HTTPConnection) -> Services:
    services: Services = connection.scope["state"]["services"]
    return services


def key_of(session_id: str) -> SessionKey:
    """Return the key of the session that a path names."""
    return SessionKey(TENANT, session_id)


Serving = Annotated[Services, Depends(services_of)]
Key = Annotated[SessionKey, Depends(key_of)]
