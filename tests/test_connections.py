"""What is left of connections that have ended: nothing that waits for the garbage collector."""

import asyncio
import gc

from websockets.asyncio.client import connect

from service.app import create_app
from service.server import Config, Server
from service.settings import Settings
from service.websocket import WebSocketProtocol
from tests.process import free_port


async def test_a_socket_that_has_ended_is_gone_without_a_collection() -> None:
    settings = Settings(redis_url="memory://", port=free_port())
    app = create_app(settings)
    server = Server(Config(app, settings))
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(60):
        while not server.started:  # noqa: ASYNC110  # uvicorn tells nobody
            await asyncio.sleep(0.05)
    gc.disable()
    try:
        for number in range(10):
            address = f"ws://127.0.0.1:{settings.port}/v1/sessions/s-{number}/stream?model=hotspot"
            async with connect(address) as socket:
                await socket.recv()
                await socket.send('{"x":[0.7,12,54,76,1,0,1,0]}')
                await socket.recv()
                if number % 2:
                    socket.transport.abort()  # as a network does, without a word
        await asyncio.sleep(0.5)
        left = sum(type(each) is WebSocketProtocol for each in gc.get_objects())
    finally:
        gc.enable()
        gc.unfreeze()
        server.should_exit = True
        await serving
    assert left == 0
