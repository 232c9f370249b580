"""Certificates for tests, and the servers that show them."""

import ssl
from pathlib import Path
from typing import Any

import httpx
import trustme

from tests.servers import ConveyorServer, RedisServer, free_port


class Authority:
    """Signs certificates, and keeps all it makes as PEM files in a folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self.file = folder / f"{name}.pem"
        self._authority.cert_pem.write_to_path(self.file)

    def issue(self, name: str, *identities: str) -> Path:
        """Return a file with a new certificate for `identities`, and its key."""
        path = self._folder / f"{name}.pem"
        self._authority.issue_cert(*(identities or (name,))).private_key_and_cert_chain_pem.write_to_path(path)
        return path

    def trusted(self, certificate: Path | None = None) -> ssl.SSLContext:
        """Return what a client trusts this authority with, and shows `certificate` with if one is given."""
        context = ssl.create_default_context(cafile=str(self.file))
        if certificate is not None:
            context.load_cert_chain(certificate)
        return context

    def trusted_by_threads(self, certificate: Path | None = None) -> ssl.SSLContext:
        """Return the same for a WebSocket of `websockets.sync`, which reads in one thread and writes in another.

        OpenSSL allows no two at once on a connection. With TLS 1.3, whose tickets come behind the handshake and are
        read while the request is written, one connection in 400 hung; with TLS 1.2 none of 3,600.
        """
        context = self.trusted(certificate)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        return context


class SecureServer(ConveyorServer):
    """A service with TLS; `trusted` is what its clients connect with."""

    def __init__(self, *args: str, trusted: ssl.SSLContext, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.trusted = trusted

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"wss://127.0.0.1:{self.port}"

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, verify=self.trusted, timeout=30)

    def is_ready(self) -> bool:
        try:
            with self.client() as client:
                return client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False


class SecureRedis(RedisServer):
    """A redis-server that speaks TLS on its port, and is known to be ready by its unix socket."""

    def __init__(self, certificate: Path, authority: Authority, *, clients: str = "no", **options: Any) -> None:
        super().__init__(tcp=False, unix=True, **options)
        self.tls_port = free_port()
        self.options |= {
            "tls-port": str(self.tls_port),
            "tls-cert-file": str(certificate),
            "tls-key-file": str(certificate),
            "tls-ca-cert-file": str(authority.file),
            "tls-auth-clients": clients,
        }

    def tls_url(self, host: str = "127.0.0.1", **query: object) -> str:
        """Return the URL with options of redis-py's in its query."""
        return f"rediss://{host}:{self.tls_port}/0?" + "&".join(f"{name}={value}" for name, value in query.items())
