"""A client whose machine vanishes says nothing: its connection stands half open until the service finds out."""

import socket
import sys

import psutil
import pytest

from tests.api.wire import readings, stream
from tests.servers import ConveyorServer, wait_until
from tests.test_websocket import RawClient

ROWS = readings(3)
_TCP_REPAIR = 19
"""A socket in this state (Linux, with CAP_NET_ADMIN) goes without a word: no FIN and no RST is sent."""


def vanish(client: RawClient) -> None:
    try:
        client.socket.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
    except PermissionError:
        pytest.skip("to vanish without a word needs CAP_NET_ADMIN")
    client.socket.close()


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_REPAIR is Linux's")
def test_clients_that_vanish_are_found_out_and_can_come_back_at_once(service: ConveyorServer) -> None:
    process = psutil.Process(service.pid)

    def connected() -> set[int]:
        return {c.raddr.port for c in process.net_connections("tcp") if c.raddr} & ports

    clients = [RawClient(service, path) for path in ("/v1/sessions/vanished/stream?model=hotspot", "/v1/stream")]
    ports = {client.socket.getsockname()[1] for client in clients}
    assert connected() == ports
    for client in clients:
        vanish(client)
    with stream(service, "vanished", "?model=hotspot") as back:
        at = back.receive()["step"]
        assert [back.ask({"x": row})["step"] for row in ROWS] == [at + 1, at + 2, at + 3]
    assert connected() == ports, "nobody has told the service yet"
    # A ping is due every 20 s; the system where the client was knows nothing of the connection any more, and says so.
    assert wait_until(lambda: not connected(), 60)
    assert "Traceback" not in service.output()
