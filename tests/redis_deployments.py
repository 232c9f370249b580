"""Redis servers that fail over, on loopback: a master with a replica, three sentinels before them, a cluster.

All are context managers and end what they started. Their times are short, so that a failover takes a second or two.
"""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS

from service.adapters.redis_binary import major_version
from tests.process import Server, ServerFailed, free_port, wait_until
from tests.servers import RedisServer, redis_command

READY_WITHIN_S = 20.0
NODE_TIMEOUT_MS = 1500
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
        assert wait_until(lambda: _online(master), READY_WITHIN_S)
        yield master, replica


QUICK = {"repl_diskless_sync_delay": 0, "repl_ping_replica_period": 1}


def _online(master: RedisServer) -> bool:
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


class ClusterDeployment:
    """Masters, each with its replica. Who is which changes with every failover."""

    def __init__(self, nodes: list["ClusterNode"]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}"

    def command(self, node: RedisServer, *command: str) -> Any:
        return redis_command(node.url, *command)

    def migrate(self, source: "ClusterNode", target: "ClusterNode", *keys: str) -> None:
        """Hand keys of a slot that is being moved from one node to another."""
        credentials = ("AUTH2", "admin", "admin") if target.restricted else ()
        self.command(source, "MIGRATE", "127.0.0.1", str(target.port), "", "0", "5000", *credentials, "KEYS", *keys)

    def slots(self) -> Any:
        """CLUSTER SLOTS, as the first node that runs tells it."""
        return self.command(next(node for node in self.nodes if node.running), "CLUSTER", "SLOTS")

    def masters(self) -> list["ClusterNode"]:
        """The nodes that serve slots, the one with the first slots first."""
        ports = dict.fromkeys(port for _, _, (_, port, *_), *_ in sorted(self.slots()))
        return [node for port in ports for node in self.nodes if node.port == port]

    def replica_of(self, master: "ClusterNode") -> "ClusterNode":
        """The replica of a master that runs."""
        port = fields(self.command(master, "INFO", "replication"))["slave0"]["port"]
        return next(node for node in self.nodes if node.port == port)

    def restore(self) -> None:
        """Start what was killed, wake what was stopped, wait until every master has its replica; forget all keys."""
        for node in self.nodes:
            if not node.running:
                node.start()
            node.signal(signal.SIGCONT)
        assert wait_until(self.is_whole, READY_WITHIN_S, every_s=0.05), "the cluster does not heal"
        for master in self.masters():
            self.command(master, "FLUSHALL")

    def id_of(self, node: RedisServer) -> str:
        return str(self.command(node, "CLUSTER", "MYID"))

    def is_master(self, node: RedisServer) -> bool:
        return bool(fields(self.command(node, "INFO", "replication"))["role"] == "master")

    def is_well(self) -> bool:
        """Whether all nodes that run know of all slots served."""
        return all(
            fields(self.command(node, "CLUSTER", "INFO"))["cluster_state"] == "ok"
            for node in self.nodes
            if node.running
        )

    def is_whole(self) -> bool:
        """Whether each master has its replica, and that one all that the master had."""
        replicas = [node for node in self.nodes if not self.is_master(node)]
        return (
            self.is_well()
            and len(replicas) == len(self.nodes) - len(self.masters())
            and all(map(is_synchronized, replicas))
            and (not replicas or all(map(_online, self.masters())))
        )

    def _assemble(self, masters: int) -> None:
        share = -(-REDIS_CLUSTER_HASH_SLOTS // masters)
        for number, master in enumerate(self.nodes[:masters]):
            last = min((number + 1) * share, REDIS_CLUSTER_HASH_SLOTS)
            self.command(master, "CLUSTER", "ADDSLOTS", *map(str, range(number * share, last)))
            self.command(master, "CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        for node in self.nodes[1:]:
            self.command(node, "CLUSTER", "MEET", "127.0.0.1", str(self.nodes[0].port), str(self.nodes[0].bus))
        assert wait_until(lambda: all(map(self._knows_all, self.nodes)), READY_WITHIN_S, every_s=0.05)
        for master, replica in zip(self.nodes, self.nodes[masters:], strict=False):
            self.command(replica, "CLUSTER", "REPLICATE", self.id_of(master))
        assert wait_until(self.is_whole, READY_WITHIN_S, every_s=0.05), "the cluster does not come up"

    def _knows_all(self, node: RedisServer) -> bool:
        return int(fields(self.command(node, "CLUSTER", "INFO"))["cluster_known_nodes"]) == len(self.nodes)


class ClusterNode(RedisServer):
    """A redis-server in cluster mode. It has one database."""

    def __init__(self, binary: Path | str | None = None, **options: Any) -> None:
        super().__init__(binary, **QUICK, **options)
        self.bus = free_port()
        self.options |= {
            "cluster-enabled": "yes",
            "cluster-config-file": str(self.folder / "nodes.conf"),
            "cluster-node-timeout": str(NODE_TIMEOUT_MS),
            "cluster-require-full-coverage": "no",
            "cluster-replica-validity-factor": "0",
        }
        if major_version(Path(self.binary)) >= 7:
            self.options["cluster-port"] = str(self.bus)
        else:
            while self.port > 55_000:
                self.port = free_port()
            self.bus = self.port + 10_000


@contextmanager
def cluster_deployment(
    binary: Path | str | None = None, *, masters: int = 3, replicas: bool = True, **options: Any
) -> Iterator[ClusterDeployment]:
    with ExitStack() as stack:
        nodes = _start_nodes(binary, masters * (2 if replicas else 1), options, stack)
        deployment = ClusterDeployment(nodes)
        deployment._assemble(masters)
        yield deployment


def _start_nodes(
    binary: Path | str | None, count: int, options: dict[str, Any], stack: ExitStack, attempts: int = 3
) -> list[ClusterNode]:
    """Start nodes, which `stack` ends. A port that was free may be taken by the time: then with others."""
    nodes = [ClusterNode(binary, **options) for _ in range(count)]
    for node in nodes:
        stack.callback(node.close)
        node.start(wait=False)
    try:
        for node in nodes:
            node.wait_ready(READY_WITHIN_S)
    except ServerFailed:
        for node in nodes:
            node.close()
        if attempts == 1:
            raise
        return _start_nodes(binary, count, options, stack, attempts - 1)
    return nodes
