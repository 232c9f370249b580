"""The ceiling: answers of a forecast's size, without a model and without Redis.

Over HTTP with FastAPI and pydantic, as most services have it; over WebSockets with bare ASGI, the least that a Python
server can do for a message. What the load generator reaches here it could reach anywhere: it shows its own limit.
"""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

FORECAST = [[60.123456, 61.123456, 62.123456]] * 24
MESSAGE = f'{{"step":1000,"outputs":{{"hot_spot":{FORECAST}}}}}'.replace(" ", "")

http = FastAPI()


class Step(BaseModel):
    x: list[float]


class Forecast(BaseModel):
    session_id: str
    outputs: dict[str, list[list[float]]]


@http.post("/v1/sessions/{session_id}/steps")
async def step(session_id: str, request: Step) -> Forecast:
    return Forecast(session_id=session_id, outputs={"hot_spot": FORECAST})


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await (stream if scope["type"] == "websocket" else http)(scope, receive, send)


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    reply: dict[str, Any] = {"type": "websocket.send", "text": MESSAGE}
    while (message := await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.accept"} if message["type"] == "websocket.connect" else reply)
