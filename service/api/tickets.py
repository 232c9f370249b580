"""Tickets: a page's script cannot send an Authorization header with a WebSocket, so it shows a ticket in the query.

A key in its place would stand in the logs of every proxy on the way. A ticket that stands there has been used.
"""

from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Response
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.dependencies import PRINCIPAL, Caller, Services, Serving
from service.api.gate import refuse
from service.api.hot import needing
from service.core.access import Principal
from service.core.errors import ConveyorError, Unauthenticated
from service.core.tickets import digest_of, may_be_ticket, new_ticket, packed, unpacked

PARAMETER = "ticket"

router = APIRouter(prefix="/v1/tickets", tags=["access"], route_class=needing(None))


class Ticket(BaseModel):
    ticket: str
    """For the query of one WebSocket, opened within `expires_in_s` seconds: ``?ticket=…``."""
    expires_in_s: float


@router.post("", status_code=201)
async def issue_ticket(caller: Caller, services: Serving, response: Response) -> Ticket:
    """Issue a ticket with which a browser can open one WebSocket, as who asks for it and with the same scopes."""
    ticket = new_ticket()
    await services.tickets.keep(digest_of(ticket), packed(caller), services.limits.ticket_ttl_s)
    response.headers["cache-control"] = "no-store"
    return Ticket(ticket=ticket, expires_in_s=services.limits.ticket_ttl_s)


class TicketHolders:
    """ASGI layer of handshakes that lets in whoever opens a WebSocket with a ticket, before the gate asks who that is.

    The ticket is taken out of the query, so that no log and no error that shows the query shows it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services: Services = scope["state"]["services"]
        try:
            for ticket in taken_out(scope):
                scope[PRINCIPAL] = await _bearer(services, ticket)
        except ConveyorError as error:
            await refuse(scope, receive, send, error)
        else:
            await self._app(scope, receive, send)


def taken_out(scope: Scope) -> list[str]:
    """Take the ticket out of a connection's query. Raises `Unauthenticated` where there are several."""
    if f"{PARAMETER}=".encode() not in scope["query_string"]:
        return []
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    scope["query_string"] = urlencode([(name, value) for name, value in query if name != PARAMETER]).encode()
    tickets = [value for name, value in query if name == PARAMETER]
    if len(tickets) > 1:
        raise Unauthenticated("the query has more than one ticket")
    return tickets


async def _bearer(services: Services, ticket: str) -> Principal:
    """Use up a ticket; return for whom it was issued. Raises `Unauthenticated`, and `Unavailable`."""
    found = await services.tickets.take(digest_of(ticket)) if may_be_ticket(ticket) else None
    bearer = None if found is None else unpacked(found)
    if bearer is None or not (services.authenticator is None or services.authenticator.holds(bearer)):
        raise Unauthenticated(
            "this ticket is not good: it was never issued, has been used or has expired; "
            "ask for another with POST /v1/tickets"
        )
    return bearer
