"""Plain steps over HTTP as bytes on a connection of one's own: no client's library comes between."""

import asyncio
import time

import orjson

from tests.servers import ConveyorServer
from tests.streaming_client import reading


async def answer_of(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The status line and the body of the next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    (length,) = (int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
    return head.partition(b"\r\n")[0], await reader.readexactly(length)


async def answers_of_one_connection(server: ConveyorServer, request: bytes, count: int) -> list[tuple[bytes, float]]:
    """Send a request over and over on one connection; return each status line, and after how many seconds it came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    answers = []
    try:
        async with asyncio.timeout(60):
            for _ in range(count):
                sent_at = time.monotonic()
                writer.write(request)
                status, _ = await answer_of(reader)
                answers.append((status, time.monotonic() - sent_at))
    finally:
        writer.close()
    return answers


def plain_step(session_id: str, headers: str = "") -> bytes:
    body = orjson.dumps({"x": reading(0, 0)})
    head = f"POST /v1/sessions/{session_id}/steps HTTP/1.1\r\nHost: h\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
