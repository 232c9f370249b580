"""Who asks a service until it is too much."""

from typing import Any

import httpx

from tests.api.wire import readings, stream_at
from tests.servers import ConveyorServer

X = readings(1)[0]
SELDOM = 0.001
"""Timesteps per second, so few that no test sees a bucket fill."""


class Caller:
    """Somebody who asks a service."""

    def __init__(self, service: ConveyorServer, headers: dict[str, str]) -> None:
        self.service = service
        self.headers = headers
        self.client = httpx.Client(base_url=service.url, headers=headers, timeout=30)

    def open(self, *ids: str) -> None:
        for session_id in ids:
            assert self.client.put(f"/v1/sessions/{session_id}", json={"model": "hotspot"}).status_code == 201

    def step(self, session_id: str, x: object = X, **fields: object) -> httpx.Response:
        return self.client.post(f"/v1/sessions/{session_id}/steps", json={"x": x, **fields})

    def socket(self, path: str = "/v1/stream") -> Any:
        return stream_at(self.service, path, additional_headers=self.headers)

    def ask_until_refused(self) -> int:
        """Return how many requests were answered before one was refused."""
        for count in range(1000):
            if self.client.get("/v1/models").status_code == 429:
                return count
        raise AssertionError("nothing was refused")
