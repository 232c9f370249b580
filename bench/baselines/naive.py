"""The service that a competent developer writes in an hour: FastAPI, redis.asyncio, ONNX Runtime, one step at a time.

It answers as Conveyor does, with the same model and the same Redis, and gives none of its promises: two steps of one
session at once may lose one, and a step that is sent again advances the session again.
"""

import os

import numpy as np
import onnxruntime as ort
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from pydantic import BaseModel
from redis.asyncio import Redis

EXPIRY_S = 7 * 24 * 3600
MAX_CONNECTIONS = 2048  # the default, 100, refuses the step of the 101st client at once
STATE_SHAPE = (2, 2, 1, 64)  # hidden and cell; layer, batch, unit
STATE_BYTES = 4 * 2 * 2 * 64

options = ort.SessionOptions()
options.intra_op_num_threads = 1
model = ort.InferenceSession(os.environ["BENCH_MODEL"], options)
redis = Redis.from_url(os.environ["BENCH_REDIS_URL"], max_connections=MAX_CONNECTIONS)
app = FastAPI()


class Step(BaseModel):
    x: list[float]


class Forecast(BaseModel):
    session_id: str
    outputs: dict[str, list[list[float]]]


@app.post("/v1/sessions/{session_id}/steps")
async def step(session_id: str, request: Step) -> Forecast:
    return Forecast(session_id=session_id, outputs={"hot_spot": await advance(session_id, request.x)})


@app.websocket("/v1/sessions/{session_id}/stream")
async def stream(socket: WebSocket, session_id: str) -> None:
    await socket.accept()
    try:
        while True:
            request = Step.model_validate(await socket.receive_json())
            await socket.send_json({"outputs": {"hot_spot": await advance(session_id, request.x)}})
    except WebSocketDisconnect:
        pass


async def advance(session_id: str, x: list[float]) -> list[list[float]]:
    """Read the session's state, run the model on one timestep, write the state."""
    key = f"naive:{session_id}"
    stored = await redis.get(key) or bytes(STATE_BYTES)
    hidden, cell = np.frombuffer(stored, np.float32).reshape(STATE_SHAPE)
    forecast, hidden, cell = model.run(None, {"x": np.array([[x]], np.float32), "hidden": hidden, "cell": cell})
    await redis.set(key, hidden.tobytes() + cell.tobytes(), ex=EXPIRY_S)
    return forecast[0, 0].tolist()
