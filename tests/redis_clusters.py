"""Redis clusters that fail over, on loopback. They end what they started, see `redis_deployments.py`."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS

from service.adapters.redis_binary import major_version
from tests.process import ServerFailed, free_port, wait_until
from tests.redis_deployments import QUICK, READY_WITHIN_S, fields, is_online, is_synchronized
from tests.servers import RedisServer, redis_command

NODE_TIMEOUT_MS = 1500


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
            and (not replicas or all(map(is_online, self.masters())))
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
