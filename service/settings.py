"""Every setting of the service, read from the environment (prefix ``CONVEYOR_``) or given by the command line."""

from pathlib import Path
from typing import Annotated, Literal, Self

from annotated_types import Ge, Gt, Le
from pydantic import model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Positive = Annotated[int, Gt(0)]
Seconds = Annotated[float, Gt(0)]


class Settings(BaseSettings):
    """How a process serves. No instance exists at import: the composition root makes one."""

    model_config = SettingsConfigDict(env_prefix="CONVEYOR_", frozen=True, use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Ge(0), Le(65535)] = 8000
    """Port to listen on; 0 lets the system choose."""
    workers: Positive = 1
    """Processes that serve on the one port."""
    worker_timeout_s: Seconds = 30.0
    """Seconds that one of several workers may hang before it is killed and replaced."""

    models: Path = Path("models")
    """Folder of models: ``<name>/<version>/model.onnx``."""
    redis_url: str | None = None
    """``redis://``, ``rediss://`` or ``unix://`` of the Redis that keeps the sessions; ``memory://`` keeps them in
    the process, lost with it. Unset: a private redis-server in `data_dir`."""
    store_description: str | None = None
    """What to call the store in `/readyz`; set by the process that started a private redis-server for others."""
    data_dir: Path = Path("data")
    """Folder of the private redis-server, where none is named."""

    session_ttl_s: Annotated[int, Gt(0), Le(2**32 - 1)] = 7 * 24 * 3600
    """Seconds that a session lives after its last timestep, where its creator does not say."""
    max_ttl_s: Annotated[int, Gt(0), Le(2**32 - 1)] = 365 * 24 * 3600
    """Longest time to live that a creator may ask for, seconds."""

    max_batch: Annotated[int, Gt(0), Le(4096)] = 256
    """Sessions in one run of a model."""
    max_queue: Positive = 8192
    """Timesteps waiting in this process; beyond, steps are refused with a time to come back."""
    max_wait_s: Seconds = 0.01
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
    cache_sessions: Positive = 20_000
    """Sessions whose last record this process remembers, so that it need not be read again."""

    step_timeout_s: Seconds = 10.0
    """Seconds that a step may wait before it is refused unrun."""
    store_timeout_s: Seconds = 2.0
    """Seconds that one exchange with Redis may take; one that failed is made once more."""
    drain_timeout_s: Annotated[float, Gt(0), Le(7)] = 7.0
    """Seconds that running steps and open sockets get when the process is told to stop."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe level that is logged."""
    log_format: Literal["console", "json"] = "console"
    """Lines for people, or for a log collector."""
    access_log: bool = False
    """Log every request; metrics count them anyway."""

    @model_validator(mode="after")
    def _require_order(self) -> Self:
        if self.session_ttl_s > self.max_ttl_s:
            raise ValueError(f"session_ttl_s is {self.session_ttl_s}, beyond max_ttl_s, {self.max_ttl_s}")
        return self
