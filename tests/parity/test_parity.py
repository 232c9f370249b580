"""The test that matters most: what is served is what was trained, whoever else is being served.

64 sessions are interleaved at random over REST, their own WebSockets and shared ones, in single steps and chunks. The
truth is PyTorch's forward over each whole sequence, and, to the bit, each session served alone by a fresh server.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
import torch
from torch import Tensor, nn
from websockets.asyncio.client import ClientConnection, connect

from model_export import describe, export_streaming
from tests.servers import ConveyorServer, RedisServer

SESSIONS = 64
FEATURES = 8
SHARED_SOCKETS = 4

Chunk = list[list[float]]
Send = Callable[[str, Chunk], Coroutine[Any, Any, dict[str, Any]]]


class Forecaster(nn.Module):
    """The demo model's size: 2 layers of 64 units, 24 horizons of 3 quantiles."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, 64, num_layers=2, batch_first=True)
        self.head = nn.Linear(64, 24 * 3)

    def forward(self, x: Tensor, states: Any) -> tuple[Tensor, Any]:
        y, states = self.lstm(x, states)
        return self.head(y).unflatten(-1, (24, 3)), states


@pytest.fixture(scope="module")
def network() -> Forecaster:
    torch.manual_seed(5)
    return Forecaster().eval()


@pytest.fixture(scope="module")
def models(network: Forecaster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    spec = describe(network, [f"sensor_{i}" for i in range(FEATURES)])
    export_streaming(network, spec, folder / "forecaster" / "1" / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def sequences() -> dict[str, list[Chunk]]:
    """For each session the chunks that it is fed with, most of them of one timestep."""
    rng = np.random.default_rng(11)
    cut = random.Random(12)
    sequences = {}
    for i in range(SESSIONS):
        x = rng.standard_normal((cut.randint(30, 60), FEATURES)).astype(np.float32).astype(float).tolist()
        chunks = []
        while x:
            length = cut.choice([1, 1, 1, 1, 2, 3, 7])
            chunks.append(x[:length])
            x = x[length:]
        sequences[f"s{i}"] = chunks
    return sequences


@pytest.fixture(scope="module")
def served_together(models: Path, sequences: dict[str, list[Chunk]]) -> Iterator[dict[str, list[np.ndarray]]]:
    with RedisServer() as redis, ConveyorServer(redis_url=redis.url, models=models) as service:
        yield asyncio.run(_serve_together(service, sequences))


async def _serve_together(service: ConveyorServer, sequences: dict[str, list[Chunk]]) -> dict[str, list[np.ndarray]]:
    chance = random.Random(13)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=service.url, timeout=60))
        for session_id in sequences:
            (await http.put(f"/v1/sessions/{session_id}", json={"model": "forecaster"})).raise_for_status()
        own = {
            session_id: await stack.enter_async_context(_own_socket(service, session_id)) for session_id in sequences
        }
        shared = [await stack.enter_async_context(_shared_socket(service)) for _ in range(SHARED_SOCKETS)]

        async def feed(session_id: str) -> list[np.ndarray]:
            answers = []
            for chunk in sequences[session_id]:
                send = chance.choice([_rest(http), own[session_id], chance.choice(shared)])
                answer = await send(session_id, chunk)
                answers.append(_outputs(answer))
            assert answer["step"] == sum(map(len, sequences[session_id]))
            return answers

        fed = await asyncio.gather(*map(feed, sequences))
    return dict(zip(sequences, fed, strict=True))


def _rest(http: httpx.AsyncClient) -> Send:
    async def send(session_id: str, chunk: Chunk) -> dict[str, Any]:
        response = await http.post(f"/v1/sessions/{session_id}/steps", json={"x": _one_or_all(chunk)})
        response.raise_for_status()
        return dict(response.json())

    return send


@asynccontextmanager
async def _own_socket(service: ConveyorServer, session_id: str) -> AsyncIterator[Send]:
    async with connect(f"{service.ws_url}/v1/sessions/{session_id}/stream") as socket:
        await socket.recv()

        async def send(_: str, chunk: Chunk) -> dict[str, Any]:
            return dict(await _exchange(socket, {"x": _one_or_all(chunk)}))

        yield send


@asynccontextmanager
async def _shared_socket(service: ConveyorServer) -> AsyncIterator[Send]:
    async with connect(f"{service.ws_url}/v1/stream") as socket:
        turn = asyncio.Lock()

        async def send(session_id: str, chunk: Chunk) -> dict[str, Any]:
            async with turn:
                (answer,) = await _exchange(socket, [{"session_id": session_id, "x": _one_or_all(chunk)}])
                return dict(answer)

        yield send


async def _exchange(socket: ClientConnection, message: Any) -> Any:
    await socket.send(orjson.dumps(message).decode())
    return orjson.loads(await socket.recv())


def _one_or_all(chunk: Chunk) -> list[float] | Chunk:
    return chunk[0] if len(chunk) == 1 else chunk


def _outputs(answer: dict[str, Any]) -> np.ndarray:
    return np.array(answer["outputs"]["output"], np.float32)


def test_the_forecasts_are_those_of_pytorch_over_the_whole_sequence(
    served_together: dict[str, list[np.ndarray]], sequences: dict[str, list[Chunk]], network: Forecaster
) -> None:
    worst = 0.0
    for session_id, answers in served_together.items():
        chunks = sequences[session_id]
        x = torch.tensor([row for chunk in chunks for row in chunk])
        with torch.no_grad():
            truth = network(x[None], None)[0][0].numpy()
        ends = np.cumsum([len(chunk) for chunk in chunks]) - 1
        worst = max(worst, float(np.abs(np.stack(answers) - truth[ends]).max()))
    assert worst < 1e-5


def test_a_session_alone_on_a_fresh_server_gets_the_same_bits(
    served_together: dict[str, list[np.ndarray]], sequences: dict[str, list[Chunk]], models: Path
) -> None:
    with RedisServer() as redis, ConveyorServer(redis_url=redis.url, models=models) as service:
        with httpx.Client(base_url=service.url, timeout=60) as http:
            for session_id, answers in served_together.items():
                http.put(f"/v1/sessions/{session_id}", json={"model": "forecaster"}).raise_for_status()
                for chunk, answer in zip(sequences[session_id], answers, strict=True):
                    for row in chunk:
                        alone = http.post(f"/v1/sessions/{session_id}/steps", json={"x": row}).json()
                    assert _outputs(alone).tobytes() == answer.tobytes()
