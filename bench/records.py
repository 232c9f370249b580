"""Records of sessions as the service writes them, made without it."""

import random
import time

from service.adapters.onnx_model import OnnxModel
from service.core import record
from service.core.session import Session

TTL_S = 7 * 24 * 3600
TTL_MS = str(TTL_S * 1000).encode()


def record_of(model: OnnxModel, step: int, state: bytes, outputs: bytes, epoch: int | None = None) -> bytes:
    """Return the record of a session at `step`; of a random epoch if none is given."""
    return record.encode(
        Session(
            model=model.ref,
            epoch=random.getrandbits(64) if epoch is None else epoch,
            step=step,
            nonce=random.getrandbits(64),
            updated_at_ms=time.time_ns() // 1_000_000,
            ttl_s=TTL_S,
            state=state,
            outputs=outputs,
        )
    )
