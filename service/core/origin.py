"""Origins: how a browser says of which site the page is whose script is asking."""

import re

ANY_ORIGIN = "*"

_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def require_origin(origin: str) -> str:
    """Return an origin as browsers write it, or `ANY_ORIGIN`. Raises `ValueError` for what is none."""
    origin = origin.strip().lower()
    if origin == ANY_ORIGIN:
        return origin
    if _ORIGIN.fullmatch(origin) is None:
        raise ValueError(f"{origin!r} is no origin; https://example.com or http://localhost:3000 would be, or *")
    return origin.removesuffix(_DEFAULT_PORTS[origin.partition(":")[0]])


def is_of_host(origin: str, host: str) -> bool:
    """Whether a page of `origin` asks the `host` that it comes from.

    Its scheme does not tell: TLS may have ended at a proxy.
    """
    scheme, _, place = origin.partition("://")
    port = _DEFAULT_PORTS.get(scheme)
    return port is not None and bool(place) and place.removesuffix(port) == host.lower().removesuffix(port)
