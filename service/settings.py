"""Every setting of the service, read from the environment (prefix ``CONVEYOR_``) or given by the command line."""

from pathlib import Path
from typing import Annotated, Literal, Self

from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.core.origin import require_origin
from service.core.rate import FASTEST, LARGEST, SLOWEST

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures that are verified with a public key. With the others, who can verify can forge."""
Origin = Annotated[str, AfterValidator(require_origin)]
Positive = Annotated[int, Gt(0)]
Seconds = Annotated[float, Gt(0)]


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


class Settings(BaseSettings):
    """How a process serves. No instance exists at import: the composition root makes one."""

    model_config = SettingsConfigDict(
        env_prefix="CONVEYOR_", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Ge(0), Le(65535)] = 8000
    """Port to listen on; 0 lets the system choose."""
    workers: Positive = 1
    """Processes that serve on the one port."""
    worker_timeout_s: Seconds = 30.0
    """Seconds that one of several workers may hang before it is killed and replaced."""
    tls_certificate: Path | None = None
    """File with the certificate (PEM, the chain after it) to serve ``https://`` and ``wss://`` with. Unset: no TLS."""
    tls_key: Path | None = None
    """File with the certificate's private key, where it is not in the same file."""
    tls_key_password: SecretStr | None = None
    """What the private key is encrypted with, if it is."""
    tls_client_ca: Path | None = None
    """File with the certificates (PEM) of who signs clients' certificates: a client without one is refused."""

    api_keys: Path | None = None
    """File of API keys, written by `conveyor keys`; read again when it changes."""
    jwt_keys: str | None = None
    """JSON Web Key Set of an issuer of tokens: a file, or an ``https://`` URL."""
    jwt_issuer: str | None = None
    """What tokens must say in ``iss``."""
    jwt_audience: str | None = None
    """What tokens must say in ``aud``."""
    jwt_algorithms: Annotated[tuple[Algorithm, ...], NoDecode, BeforeValidator(_split), Len(1)] = ("RS256", "ES256")
    """Algorithms that tokens may be signed with, with commas in between: RS, PS, ES (256, 384 or 512), EdDSA."""
    jwt_tenant_claim: str = "tenant"
    """Claim of a token that names whose sessions it is for."""
    jwt_scope_claim: str = "scope"
    """Claim of a token with its scopes: a list, or a string with spaces in between."""
    jwt_leeway_s: Annotated[float, Ge(0), Le(300)] = 30.0
    """Seconds that the clocks of the issuer and of the service may be apart."""
    allow_anybody: bool = False
    """Serve everybody on an address that others can reach, with neither `api_keys` nor `jwt_keys`."""

    models: Path = Path("models")
    """Folder of models: ``<name>/<version>/model.onnx``."""
    redis_url: Annotated[str | None, Field(repr=False)] = None
    """``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://`` or ``redis+cluster://`` of the Redis that keeps
    the sessions; ``memory://`` keeps them in the process, lost with it. Unset: a private redis-server in `data_dir`."""
    durability: Literal["none", "aof", "replica"] = "none"
    """What Redis must confirm before a step is answered: ``none`` beyond having it in memory, ``aof`` that it is on
    its disk, ``replica`` that a replica has it."""
    max_model_bytes: Annotated[int, Gt(0), Lt(2**31)] = 512 * 1024 * 1024
    """Bytes of one model file."""
    model_trial_s: Annotated[float, Ge(0)] = 60.0
    """Seconds that a model may take to load and warm up in a process of its own, where it is tried out before it is
    served; 0 goes without."""
    model_trial_bytes: Positive = 4 * 1024**3
    """Bytes of address space that a model may take there."""
    store_description: str | None = None
    """What to call the store in `/readyz`; set by the process that started a private redis-server for others."""
    data_dir: Path = Path("data")
    """Folder of the private redis-server, where none is named."""

    session_ttl_s: Annotated[int, Gt(0), Le(2**32 - 1)] = 7 * 24 * 3600
    """Seconds that a session lives after its last timestep, where its creator does not say."""
    max_ttl_s: Annotated[int, Gt(0), Le(2**32 - 1)] = 365 * 24 * 3600
    """Longest time to live that a creator may ask for, seconds."""

    max_batch: Annotated[int, Gt(0), Le(4096)] = 256
    """Sessions in one run of a model, 4096 at most."""
    max_queue: Positive = 8192
    """Timesteps waiting in this process; beyond, steps are refused with a time to come back."""
    max_wait_s: Seconds = 0.03
    """Seconds that steps may wait to be begun while more is sent than can be done; beyond, they are refused."""
    max_chunk: Positive = 512
    """Timesteps in one chunk."""
    max_history: Positive = 4096
    """Timesteps of history that may prime a session."""
    max_in_flight: Positive = 32
    """Messages of one WebSocket that are being worked on; further ones wait in the connection."""
    max_frame_steps: Positive = 1024
    """Steps in one ``POST /v1/steps`` or in one frame of ``/v1/stream``."""
    max_body_bytes: Positive = 2 * 1024 * 1024
    """Bytes in the body of a request, or in a frame of a WebSocket."""
    max_connections: Positive = 16_384
    """Connections to this process, WebSockets included; beyond, new ones are told to come back."""
    request_timeout_s: Seconds = 30.0
    """Seconds that a request may take to arrive, from its first byte to its last, and a new connection to send one."""
    cache_mib: Annotated[int, Ge(0)] | None = None
    """MiB of memory in this process for sessions' last records, so that they need not be read again. Unset: an eighth
    of what the machine has, or the container may use, divided by `workers`."""

    rate_limit: Annotated[float, Ge(SLOWEST), Le(FASTEST)] | None = None
    """Timesteps per second of one API key or token, where it has no limit of its own, on all processes together; any
    other request counts as one. Unset: as many as there is room for."""
    rate_burst: Annotated[int, Gt(0), Le(LARGEST)] | None = None
    """Timesteps that it may ask for at once after a rest. Unset: those of a second."""
    max_sessions: Positive | None = None
    """Sessions that one tenant may have, on all processes together. Unset: as many as Redis has room for."""
    max_sockets: Positive | None = None
    """WebSockets that one tenant may have open at this process. Unset: as many as `max_connections` allows."""
    ticket_ttl_s: Annotated[float, Gt(0), Le(3600)] = 30.0
    """Seconds in which a ticket for a WebSocket must be used, 3600 at most."""
    allowed_origins: Annotated[tuple[Origin, ...] | None, NoDecode, BeforeValidator(_split)] = None
    """Origins whose web pages may use this service, with commas in between: open WebSockets, and read answers (CORS).
    ``*`` is all of them. Unset: pages of the service's own host may open WebSockets."""

    step_timeout_s: Seconds = 10.0
    """Seconds that a step may wait before it is refused unrun."""
    store_timeout_s: Seconds = 2.0
    """Seconds that one exchange with Redis may take; one that failed is made once more."""
    drain_delay_s: Annotated[float, Ge(0), Le(120)] = 0.0
    """Seconds that a process goes on as before when it is told to stop, but for `/readyz`, which fails: as long as a
    load balancer may take to notice."""
    drain_timeout_s: Annotated[float, Gt(0), Le(7)] = 7.0
    """Seconds that running steps and open sockets get when the process is told to stop, 7 at most."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe level that is logged: ``debug``, ``info``, ``warning`` or ``error``."""
    log_format: Literal["console", "json"] = "console"
    """Lines for people (``console``), or for a log collector (``json``)."""
    access_log: bool = False
    """Log every request; metrics count them anyway. A step over HTTP costs twice as much then."""

    @model_validator(mode="after")
    def _require_order(self) -> Self:
        if self.session_ttl_s > self.max_ttl_s:
            raise ValueError(f"session_ttl_s is {self.session_ttl_s}, beyond max_ttl_s, {self.max_ttl_s}")
        if self.rate_burst is not None and self.rate_limit is None:
            raise ValueError(f"rate_burst is {self.rate_burst}, but there is no rate_limit")
        if self.jwt_keys is not None and not (self.jwt_issuer and self.jwt_audience):
            raise ValueError("jwt_keys needs jwt_issuer and jwt_audience: which tokens are meant for this service?")
        if self.tls_certificate is None and (self.tls_key or self.tls_key_password or self.tls_client_ca):
            raise ValueError("a TLS key or client authority is named, and no certificate: set CONVEYOR_TLS_CERTIFICATE")
        return self

    @property
    def authenticates(self) -> bool:
        """Whether who asks has to say who they are."""
        return self.api_keys is not None or self.jwt_keys is not None
