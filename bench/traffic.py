"""The bytes that go over the wire, made before the clock runs."""

import random
from collections.abc import Sequence
from functools import cache

import msgspec

from bench.encodings import ENCODINGS
from bench.scenarios import Scenario

Row = list[float]

CYCLE = 2048
"""Sessions of a population that one connection goes round, at most. 64 connections meet six times as many sessions as
the service remembers, before one comes again."""


class Sender(msgspec.Struct):
    """What one connection sends: `messages`, over and over, to `path`, for the sessions `ids`."""

    path: str
    ids: list[str]
    messages: list[bytes]


def session_id(prefix: str, index: int) -> str:
    return f"{prefix}-{index}"


def row_at(rows: Sequence[Row], session: int, step: int) -> Row:
    """Return the timestep that a session (by its index) sends as its step number `step`, the first being 0.

    Sessions begin at different rows, so that an answer given to the wrong session is a wrong answer.
    """
    return rows[(7 * session + step) % len(rows)]


def senders(scenario: Scenario, prefix: str, rows: Sequence[Row]) -> list[Sender]:
    """Return one sender per connection. A cycle through its messages is a whole number of cycles through the rows."""
    if scenario.population:
        return [_among_population(scenario, prefix, rows, each) for each in range(scenario.connections)]
    made = []
    for connection in range(scenario.connections):
        sessions = range(connection * scenario.sessions, (connection + 1) * scenario.sessions)
        ids = [session_id(prefix, session) for session in sessions]
        path = _path(scenario, ids[0])
        bodies = [_body(scenario, prefix, rows, sessions, message) for message in range(len(rows))]
        messages = (
            [request(path, body, ENCODINGS[scenario.encoding].media_type) for body in bodies]
            if scenario.wire == "http"
            else bodies
        )
        made.append(Sender(path, ids, messages))
    return made


def share(scenario: Scenario, connection: int) -> list[int]:
    """Return the sessions of the population that a connection goes round, in its order: no other connection's."""
    order = _order(scenario.population, CYCLE * scenario.connections, scenario.seed)
    return order[connection :: scenario.connections]


@cache
def _order(population: int, at_most: int, seed: int) -> list[int]:
    return random.Random(seed).sample(range(population), min(population, at_most))


def _among_population(scenario: Scenario, prefix: str, rows: Sequence[Row], connection: int) -> Sender:
    encoding = ENCODINGS[scenario.encoding]
    ids, messages = [], []
    for session in share(scenario, connection):
        ids.append(session_id(prefix, session))
        messages.append(encoding.encode({"session_id": ids[-1], "x": encoding.timestep(row_at(rows, session, 0))}))
    return Sender(_path(scenario, ids[0]), ids, messages)


def _path(scenario: Scenario, only_id: str) -> str:
    if scenario.wire == "http":
        return "/v1/steps" if scenario.many else f"/v1/sessions/{only_id}/steps"
    return "/v1/stream" if scenario.many else f"/v1/sessions/{only_id}/stream"


def _body(scenario: Scenario, prefix: str, rows: Sequence[Row], sessions: Sequence[int], message: int) -> bytes:
    first = message * scenario.timesteps
    encoding = ENCODINGS[scenario.encoding]

    def x(session: int) -> object:
        if scenario.timesteps == 1:
            return encoding.timestep(row_at(rows, session, first))
        return encoding.timestep([row_at(rows, session, first + t) for t in range(scenario.timesteps)])

    content: object
    if scenario.sessions == 1:
        content = {"x": x(sessions[0])}
    else:
        steps = [{"session_id": session_id(prefix, session), "x": x(session)} for session in sessions]
        content = {"steps": steps} if scenario.wire == "http" else steps
    return encoding.encode(content)


def request(
    path: str, body: bytes, content_type: str = "application/json", further: str = "", method: str = "POST"
) -> bytes:
    """Return a request that wants its answer in the body's own type. `further` headers end in CR LF each."""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\n"
        f"Accept: {content_type}\r\n{further}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
