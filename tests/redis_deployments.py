"""Redis servers that fail over, on loopback: a master with a replica, three sentinels before them.

A cluster is in `redis_clusters.py`. All are context managers and end what they started. Their times are short, so that
a failover takes a second or two.
"""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tests.process import Server, free_port, wait_until
from tests.servers import RedisServer, redis_command

READY_WITHIN_S = 20.0
SERVICE = "sessions"


def fields(info: str | dict[str, Any]) -> dict[str, Any]:
    """What INFO or CLUSTER INFO says, however the client library reads it."""
    if isinstance(info, dict):
        return info
    return dict(line.split(":", 1) for line in info.splitlines() if ":" in line)


def is_synchronized(replica: RedisServer) -> bool:
    """Whether a replica has all that its master had when it connected."""
    found = fields(redis_command(replica.url, "INFO", "replication"))
    return found.get("role") == "slave" and found.get("master_link_status") == "up"


@contextmanager
def replicated(**options: Any) -> Iterator[tuple[RedisServer, RedisServer]]:
    """A master and its replica."""
    with ExitStack() as stack:
        master = stack.enter_context(RedisServer(**QUICK, **options))
        replica = stack.enter_context(RedisServer(**QUICK, **options))
        redis_command(replica.url, "REPLICAOF", "127.0.0.1", str(master.port))
        assert wait_until(lambda: is_synchronized(replica), READY_WITHIN_S)
        assert wait_until(lambda: is_online(master), READY_WITHIN_S)
        yield master, replica


QUICK = {"repl_diskless_sync_delay": 0, "repl_ping_replica_period": 1}


def is_online(master: RedisServer) -> bool:
    """Whether a master sends its replica what it writes."""
    replica = fields(redis_command(master.url, "INFO", "replication")).get("slave0")
    return replica is not None and "online" in str(replica)


def is_level(master: RedisServer) -> bool:
    """Whether a master's replica has all that it has."""
    found = fields(redis_command(master.url, "INFO", "replication"))
    return bool(found["slave0"]["offset"] == found["master_repl_offset"])


def cut_off(master: RedisServer, replica: RedisServer) -> None:
    """Let a replica stand still and have nothing more from its master; SIGCONT ends it.

    It is not enough to stop it: what the kernel has taken for it, it would read when it goes on.
    """
    replica.signal(signal.SIGSTOP)
    redis_command(master.url, "CLIENT", "KILL", "TYPE", "replica")


class SentinelServer(Server):
    """A redis-sentinel that watches a master."""

    def __init__(self, master: RedisServer) -> None:
        super().__init__()
        self._binary = master.binary
        self.port = free_port()
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self.folder}",
            f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} 2",
            f"sentinel down-after-milliseconds {SERVICE} 1000",
            f"sentinel failover-timeout {SERVICE} 1500",
        ]
        if master.restricted:
            lines += [f"sentinel auth-user {SERVICE} admin", f"sentinel auth-pass {SERVICE} admin"]
        self._configuration = self.folder / "sentinel.conf"
        self._configuration.write_text("\n".join(lines) + "\n")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def _command(self) -> list[str]:
        return [self._binary, str(self._configuration), "--sentinel"]

    def is_ready(self) -> bool:
        try:
            return bool(redis_command(self.url, "PING"))
        except OSError:
            return False
        except Exception as error:  # the client library's own connection error is no OSError
            if "onnect" in type(error).__name__:
                return False
            raise


class SentinelDeployment:
    """A master, its replica, and three sentinels that agree on them."""

    def __init__(self, master: RedisServer, replica: RedisServer, sentinels: list[SentinelServer]) -> None:
        self.master = master
        self.replica = replica
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{sentinel.port}' for sentinel in self.sentinels)}/{SERVICE}"

    def master_port(self) -> int:
        """The port of the master that the first sentinel names."""
        _, port = redis_command(self.sentinels[0].url, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return int(port)

    @staticmethod
    def is_master(server: RedisServer) -> bool:
        """Whether a server takes itself for the master."""
        return bool(fields(redis_command(server.url, "INFO", "replication"))["role"] == "master")

    def agreed(self) -> bool:
        """Whether each sentinel knows a master, one replica of it, and the two others."""
        return all(
            (found := _master_of(sentinel)).get("num-slaves") == "1" and found.get("num-other-sentinels") == "2"
            for sentinel in self.sentinels
        )


def _master_of(sentinel: SentinelServer) -> dict[str, str]:
    found = redis_command(sentinel.url, "SENTINEL", "MASTER", SERVICE)
    if isinstance(found, dict):
        return {str(name): str(value) for name, value in found.items()}
    return dict(zip(found[::2], found[1::2], strict=True))


@contextmanager
def sentinel_deployment(**options: Any) -> Iterator[SentinelDeployment]:
    with ExitStack() as stack:
        master, replica = stack.enter_context(replicated(**options))
        sentinels = [stack.enter_context(SentinelServer(master)) for _ in range(3)]
        deployment = SentinelDeployment(master, replica, sentinels)
        assert wait_until(deployment.agreed, READY_WITHIN_S, every_s=0.1), "the sentinels do not know each other"
        yield deployment
