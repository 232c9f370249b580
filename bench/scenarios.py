"""What is measured: the ways to send timesteps, and the servers that each is sent to."""

from typing import Literal

import msgspec

Wire = Literal["http", "websocket"]
EncodingName = Literal["json", "msgpack"]

CONVEYOR = "conveyor"
NAIVE = "naive"
ECHO = "echo"
ENGINE = "engine"
REDIS = "redis"
REDIS_SPLIT = "redis, a call per session"


class Scenario(msgspec.Struct, frozen=True):
    """A closed loop: every connection keeps `in_flight` messages unanswered, and sends the next one for each answer.

    A message carries `timesteps` consecutive timesteps of each of `sessions` sessions, which are the connection's own.
    With several sessions it goes to the addresses for many, else to the session's own address.

    With `script_beside`, the commit script alone is measured right after it, because they are compared.

    With a `population`, so many sessions exist already, and the connections divide them: each goes round its share, in
    an order drawn with `seed`, one session a message, to the addresses for many.
    """

    name: str
    title: str
    wire: Wire
    connections: int
    in_flight: int = 1
    sessions: int = 1
    timesteps: int = 1
    population: int = 0
    seed: int = 0
    encoding: EncodingName = "json"
    subjects: tuple[str, ...] = (CONVEYOR,)
    script_beside: bool = False

    @property
    def script(self) -> str:
        """Name of the commit script alone, at as many sessions a call, as it is measured right beside this."""
        return f"{self.name}-script"

    @property
    def steps(self) -> int:
        """Timesteps in one message."""
        return self.sessions * self.timesteps

    @property
    def many(self) -> bool:
        """Whether messages name their sessions."""
        return self.sessions > 1 or self.population > 0


def _frames(name: str, title: str, in_flight: int, *, script_beside: bool = False, connections: int = 1) -> Scenario:
    return Scenario(
        name,
        title,
        "websocket",
        connections,
        in_flight=in_flight,
        sessions=256,
        encoding="msgpack",
        script_beside=script_beside,
    )


_ALL = (CONVEYOR, NAIVE, ECHO)

SCENARIOS = (
    Scenario("rest-1", "REST, 1 connection", "http", 1, subjects=_ALL),
    Scenario("rest-64", "REST, 64 connections", "http", 64, subjects=_ALL),
    Scenario("ws-1", "WebSocket, 1 socket", "websocket", 1),
    Scenario("ws-64", "WebSocket, 64 sockets", "websocket", 64, subjects=_ALL),
    Scenario("ws-64x8", "WebSocket, 64 sockets, 8 in flight", "websocket", 64, in_flight=8, subjects=_ALL),
    Scenario("frame-256", "WS /v1/stream, 256 sessions a frame", "websocket", 1, sessions=256),
    _frames("frame-256-msgpack", "WS /v1/stream, 256 sessions a frame, msgpack", in_flight=1, script_beside=True),
    _frames("frame-256x2-msgpack", "WS /v1/stream, 256 sessions a frame, msgpack, 2 in flight", in_flight=2),
    _frames(
        "frame-2x256-msgpack",
        "WS /v1/stream, 256 sessions a frame, msgpack, 2 sockets",
        in_flight=1,
        connections=2,
        script_beside=True,
    ),
    Scenario("batch-256", "POST /v1/steps, 256 sessions a call", "http", 1, sessions=256, script_beside=True),
    Scenario("batch-256x2", "POST /v1/steps, 256 sessions a call, 2 connections", "http", 2, sessions=256),
    Scenario(
        "batch-256x2-msgpack",
        "POST /v1/steps, 256 sessions a call, msgpack, 2 connections",
        "http",
        2,
        sessions=256,
        encoding="msgpack",
    ),
    Scenario("chunk-512", "REST, 512 timesteps a chunk", "http", 1, timesteps=512),
    Scenario("ws-chunk-512", "WebSocket, 512 timesteps a chunk", "websocket", 1, timesteps=512),
)


BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

PARTS = {ENGINE: BATCHES, REDIS: BATCHES, REDIS_SPLIT: (64, 256, 512)}
"""Parts of the service that are measured alone, and at which batch sizes."""
