"""The nouns of a stream: a session, a timestep for it, the result that comes back.

Named tuples rather than frozen dataclasses: as immutable, and made in a third of the time, several times a step.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.core.errors import InvalidSessionId

MAX_SESSION_ID = 128
"""Characters of a session's id."""
_SESSION_ID = re.compile(rf"(?!\.{{1,2}}$)[A-Za-z0-9._~:@-]{{1,{MAX_SESSION_ID}}}")

Values = Sequence[float] | Sequence[Sequence[float]] | Mapping[str, float]
"""One timestep (numbers in the features' order, or by name) or a chunk of timesteps, as a client sent it."""


class SessionKey(NamedTuple):
    """What names a session: ids of different tenants never meet."""

    tenant: str
    session_id: str


class ModelRef(NamedTuple):
    """Which file computed a state. `digest` is the first 8 bytes of the file's SHA-256."""

    name: str
    version: str
    digest: bytes


class Session(NamedTuple):
    """All there is to know of a session between two timesteps. Never changed, only replaced.

    `epoch` is drawn at random when the session is created or reset, so that nobody mistakes it for a predecessor of
    the same name. `step` counts the timesteps consumed. `nonce` is drawn for each write, so that a writer whose
    reply was lost recognises its own. `state` and `outputs` are float32 in native byte order, the tensors of the
    model's specification end to end; `outputs` are those of the last timestep, empty before the first.
    `updated_at_ms` is Unix time in milliseconds, `ttl_s` what is left to live from then on, in seconds.
    """

    model: ModelRef
    epoch: int
    step: int
    nonce: int
    updated_at_ms: int
    ttl_s: int
    state: bytes
    outputs: bytes

    @property
    def expires_at_ms(self) -> int:
        return self.updated_at_ms + self.ttl_s * 1000


class Timestep(NamedTuple):
    """What a client asks for: consume `values`, be told the outputs.

    `step` is the number that the (first) timestep is expected to become, or None for "whatever is next".
    `length` is the count of timesteps in `values`. With `every`, the outputs of each of them are wanted.
    """

    values: Values
    length: int = 1
    step: int | None = None
    every: bool = False


class Result(NamedTuple):
    """The answer to a timestep. `step` is the session's count after it.

    `outputs` are named float32 arrays of the shapes that the specification gives, with a time axis in front when
    each timestep of a chunk was asked for. `replayed` says that they are those of an earlier, identical request.
    """

    step: int
    outputs: Mapping[str, NDArray[np.float32]]
    replayed: bool = False


def require_session_id(session_id: str) -> str:
    """Return `session_id`, or raise `InvalidSessionId` where it has a character or a length that is not allowed."""
    if _SESSION_ID.fullmatch(session_id) is None:
        raise InvalidSessionId(
            f"the session id {session_id[:140]!r} is not usable: 1 to 128 of A-Z a-z 0-9 . _ ~ : @ - are, "
            "except '.' and '..' alone"
        )
    return session_id
