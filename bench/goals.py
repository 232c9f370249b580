"""What the figures are to come to: the ratios that are reported, and their bars."""

from typing import Literal

import msgspec

from bench.scenarios import CONVEYOR, ECHO, NAIVE, REDIS

Cell = tuple[str, str]
"""A scenario's name, and a subject's."""


class Goal(msgspec.Struct, frozen=True):
    """A bar that is to be reached, and an aim beyond it. With `at_most`, less is better."""

    bar: float
    aim: float
    at_most: bool = False

    def verdict(self, value: float) -> str:
        if self._reached(value, self.aim):
            return "aim met"
        return "bar met" if self._reached(value, self.bar) else "**missed**"

    def _reached(self, value: float, limit: float) -> bool:
        return value <= limit if self.at_most else value >= limit


class Comparison(msgspec.Struct, frozen=True):
    """A figure of one cell over that of another, or by itself. Without a goal it is only reported."""

    title: str
    of: Cell
    over: Cell | None
    goal: Goal | None = None
    figure: Literal["steps_per_s", "p50_ms"] = "steps_per_s"


def _conveyor(scenario: str) -> Cell:
    return scenario, CONVEYOR


# Measured right beside the scenarios that are compared with it: minutes later the machine may be another. It has two
# messages in flight; scenarios that have one are not held to a share of it (docs/decisions/0324).
_FRAMES_SCRIPT: Cell = ("frame-256-msgpack-script", REDIS)
_TWO_SOCKETS_SCRIPT: Cell = ("frame-2x256-msgpack-script", REDIS)
_CALLS_SCRIPT: Cell = ("batch-256-script", REDIS)

COMPARISONS = (
    Comparison("REST-64 / FastAPI echo", _conveyor("rest-64"), ("rest-64", ECHO), Goal(1.2, 2.5)),
    Comparison("REST-64 / naive", _conveyor("rest-64"), ("rest-64", NAIVE), Goal(3.5, 7)),
    Comparison("REST-1 / naive", _conveyor("rest-1"), ("rest-1", NAIVE)),
    Comparison("REST-1 / naive, p50", _conveyor("rest-1"), ("rest-1", NAIVE), Goal(0.8, 0.5, at_most=True), "p50_ms"),
    Comparison("WS-64 / bare ASGI echo", _conveyor("ws-64"), ("ws-64", ECHO), Goal(0.35, 0.6)),
    Comparison("WS-64 / naive", _conveyor("ws-64"), ("ws-64", NAIVE), Goal(5.5, 9)),
    Comparison("WS-64, 8 in flight / bare ASGI echo", _conveyor("ws-64x8"), ("ws-64x8", ECHO), Goal(0.2, 0.4)),
    Comparison("WS-64, 8 in flight / naive", _conveyor("ws-64x8"), ("ws-64x8", NAIVE)),
    Comparison("WS frame of 256 / commit script", _conveyor("frame-256"), _FRAMES_SCRIPT),
    *(
        comparison
        for name, told, script, goal in (
            ("frame-256-msgpack", "msgpack", _FRAMES_SCRIPT, None),
            ("frame-256x2-msgpack", "msgpack, 2 in flight", _FRAMES_SCRIPT, Goal(0.6, 0.9)),
            ("frame-2x256-msgpack", "msgpack, 2 sockets", _TWO_SOCKETS_SCRIPT, Goal(0.6, 0.9)),
        )
        for comparison in (
            Comparison(f"the same, {told}", _conveyor(name), script, goal),
            Comparison(f"the same, {told}, steps/s", _conveyor(name), None, Goal(25_000, 25_000)),
        )
    ),
    Comparison("POST /v1/steps of 256 / commit script", _conveyor("batch-256"), _CALLS_SCRIPT),
    Comparison("the same, 2 connections", _conveyor("batch-256x2"), _CALLS_SCRIPT, Goal(0.5, 0.8)),
    Comparison("the same, msgpack, 2 connections", _conveyor("batch-256x2-msgpack"), _CALLS_SCRIPT, Goal(0.5, 0.8)),
    Comparison("A chunk of 512 / single steps, one socket", _conveyor("ws-chunk-512"), _conveyor("ws-1"), Goal(40, 80)),
    Comparison(
        "1,000,000 live sessions / 1,000", _conveyor("sessions-1000000"), _conveyor("sessions-1000"), Goal(0.9, 1.0)
    ),
    Comparison(
        "1,000,000 live sessions, each read from Redis first / 1,000",
        _conveyor("sessions-1000000-read"),
        _conveyor("sessions-1000-read"),
    ),
    Comparison("50,000 live sessions / 1,000", _conveyor("sessions-50000"), _conveyor("sessions-1000")),
    Comparison("Two workers / one", _conveyor("workers-2"), _conveyor("workers-1")),
)

REDIS_BYTES = Goal(250, 150, at_most=True)
"""Bytes that Redis holds for a session beyond the tensors of its state and of its last outputs."""

SOCKET_KIB = Goal(100, 40, at_most=True)
"""KiB of the service's resident memory per open, idle socket."""

READY_S = Goal(2.5, 1.2, at_most=True)
"""Seconds from starting the process to its being ready."""
