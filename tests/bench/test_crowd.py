"""What a crowd does is measured on a real service, with a small crowd."""

import asyncio

import pytest

pytest.importorskip("picows", reason="needs the bench extra")
pytest.importorskip("psutil", reason="needs the bench extra")

from bench.crowd import FEW_SESSIONS, LIVE_SESSIONS, Crowd
from bench.once import send_once
from bench.servers import conveyor, redis_server, temporary

SESSIONS, SOCKETS, CALLS = 3000, 20, 30


def test_a_crowd_is_opened_listed_stepped_expired_and_deleted() -> None:
    with temporary() as folder, redis_server(folder) as redis, conveyor(redis, folder, set()) as server:
        found = list(Crowd(redis, server, SESSIONS, SOCKETS, CALLS, seconds=1.0).measure())
        count = {each.what: each.count for each in found}
        assert count[f"list {FEW_SESSIONS} among {SESSIONS:,} of another tenant, limit 10"] >= FEW_SESSIONS // 10
        assert count[f"list {SESSIONS:,}, limit 1000"] >= (SESSIONS + LIVE_SESSIONS) // 1000
        assert count["DELETE, connections: 64"] == count["PUT, connections: 1"] == CALLS
        assert count["open with ?model="] == SOCKETS
        assert all(each.seconds > 0 for each in found)
        gone = b"DELETE /v1/sessions/nobody HTTP/1.1\r\nHost: here\r\n\r\n"
        with pytest.raises(RuntimeError, match="answered with 404, and not with 204"):
            asyncio.run(send_once(server.url, [gone], 1, 204))
