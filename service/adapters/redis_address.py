"""What a URL of several Redis servers says: ``redis+sentinel://…`` and ``redis+cluster://…``."""

from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

SENTINEL = ("redis+sentinel://", "rediss+sentinel://")
CLUSTER = ("redis+cluster://", "rediss+cluster://")
SCHEMES = ("redis://", "rediss://", "unix://", *SENTINEL, *CLUSTER)
"""What `CONVEYOR_REDIS_URL` may begin with, where it names a Redis."""


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class SeveralServers:
    """A URL that was taken apart. `path` is without its first slash."""

    addresses: list[Address]
    path: str
    _split: SplitResult

    def url_of(self, address: Address, database: str = "") -> str:
        """Return the URL of one server, with the credentials and options of the whole."""
        credentials, at, _ = self._split.netloc.rpartition("@")
        scheme = self._split.scheme.partition("+")[0]
        query = f"?{self._split.query}" if self._split.query else ""
        return f"{scheme}://{credentials}{at}{address}/{database}{query}"


def read_url(url: str, default_port: int) -> SeveralServers:
    """Take ``scheme://[user:password@]host[:port][,host[:port]…]/path?options`` apart.

    Raises ValueError, which says what is wrong without the password.
    """
    split = urlsplit(url)
    addresses = [_address(host, default_port) for host in split.netloc.rpartition("@")[2].split(",")]
    return SeveralServers(addresses, split.path.strip("/"), split)


def _address(text: str, default_port: int) -> Address:
    one = urlsplit(f"//{text}")
    try:
        port = one.port
    except ValueError:
        raise ValueError(f"{text!r} is no host:port") from None
    if not one.hostname:
        raise ValueError("a host is missing; host:port,host:port,… is needed")
    return Address(one.hostname, default_port if port is None else port)
