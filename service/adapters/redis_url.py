"""The URL of a Redis: checked before it is used, and shown without what is secret in it."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import SSLConnection
from redis.exceptions import RedisError

from service.adapters.redis_address import CLUSTER, SENTINEL, read_url

_OF_SENTINELS = re.compile(r"(?<=[?&])sentinel_(username|password)=[^&]*&?")
_ENCODED = "what is special in a password, such as / or @, has to be percent-encoded"


def shown(url: str) -> str:
    """Return the URL for a log or a person: no user, no password, no options, for one may be a password."""
    scheme, separator, rest = url.rpartition("://") if url.count("://") == 1 else ("", "", url)
    user, at, address = rest.rpartition("@")
    if "?" in user or "#" in user:
        return f"{scheme}{separator}***"  # where the password ends nobody can tell
    return f"{scheme}{separator}{'***@' if at else ''}{address.partition('?')[0]}"


def require_usable(url: str) -> None:
    """Raise `ValueError` where a connection cannot even be tried: what is wrong, and nothing that is secret."""
    if url.startswith((*SENTINEL, *CLUSTER)):
        servers = read_url(_OF_SENTINELS.sub("", url), 0)
        url = servers.url_of(servers.addresses[0])
    try:
        parts = urlsplit(url)
    except ValueError:  # its message has the password in it
        raise ValueError(f"it is no URL; {_ENCODED}") from None
    try:
        _ = parts.port
    except ValueError:
        raise ValueError(f"the port is no number from 0 to 65535; {_ENCODED}") from None
    try:
        connection: Any = ConnectionPool.from_url(url).make_connection()  # type: ignore[no-untyped-call]
    except TypeError as error:
        unknown = str(error).rpartition("argument ")[2]
        raise ValueError(f"redis-py knows no option {unknown}") from None
    except RedisError as error:
        raise ValueError(str(error)) from None
    if isinstance(connection, SSLConnection):
        _require_tls(connection.ssl_context)


def _require_tls(tls: Any) -> None:
    named = {"ssl_ca_certs": tls.ca_certs, "ssl_certfile": tls.certfile, "ssl_keyfile": tls.keyfile}
    for option, path in named.items():
        if path is not None:
            try:
                Path(path).open("rb").close()
            except OSError as error:
                raise ValueError(f"{option}, {path}, cannot be read: {error.strerror}") from None
    key = tls.keyfile or tls.certfile
    if key and tls.password is None and b"ENCRYPTED" in Path(key).read_bytes():
        raise ValueError(f"the key in {key} is encrypted: ssl_password is needed")  # OpenSSL would ask the terminal
    try:
        tls.get()
    except (OSError, ValueError) as error:
        files = ", ".join(f"{option} {path}" for option, path in named.items() if path)
        raise ValueError(f"TLS cannot be set up with {files or 'its options'}: {error}") from None
