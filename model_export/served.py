"""The same stream through a running service: one timestep to a message, over a WebSocket."""

import json
import uuid
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from model_export.errors import InputError
from model_export.runtime import Array
from service.core.spec import ModelSpec

IN_FLIGHT = 16
SESSION_TTL_S = 600


def stream_served(server: str, model: Path, spec: ModelSpec, x: Array) -> list[Array]:
    """Outputs (rows, …) of a fresh session that is fed `x` (rows, features), in the order of ``spec.outputs``.

    `server` is the service's URL, ``http://`` or ``ws://``; `model` is the file that it serves, whose folders are the
    model's name and version. Raises `InputError` where the service cannot be reached, does not serve that model, or
    refuses a timestep.
    """
    name, version = model.absolute().parts[-3:-1]
    base = server.rstrip("/").replace("http", "ws", 1)
    query = f"model={name}&version={version}&ttl_s={SESSION_TTL_S}"
    try:
        with connect(f"{base}/v1/sessions/backtest-{uuid.uuid4()}/stream?{query}", max_size=None) as socket:
            _receive(socket)
            answers = _exchange(socket, x)
    except (OSError, WebSocketException, ValueError) as error:
        raise InputError(f"--server {server}: {error}") from error
    return [np.array([answer[output.name] for answer in answers], np.float32) for output in spec.outputs]


def _exchange(socket: ClientConnection, x: Array) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = []
    waiting: deque[int] = deque()
    for step, row in enumerate(x.tolist(), 1):
        if len(waiting) == IN_FLIGHT:
            answers.append(_answer_to(socket, waiting.popleft()))
        socket.send(json.dumps({"x": row, "step": step}))
        waiting.append(step)
    answers.extend(_answer_to(socket, step) for step in waiting)
    return answers


def _answer_to(socket: ClientConnection, step: int) -> dict[str, Any]:
    message = _receive(socket)
    if message["step"] != step:
        raise InputError(f"the service answered step {message['step']} where step {step} was due")
    outputs: dict[str, Any] = message["outputs"]
    return outputs


def _receive(socket: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(socket.recv())
    if "error" in message:
        raise InputError(f"the service says: {message['error']['detail']}")
    return message
