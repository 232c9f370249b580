"""A step as the batch former sees it, and no more."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """See `service.core.turn.Step`. `group` says of which group it is a part, if of one."""

    number: int
    length: int = 1
    deadline: float = float("inf")
    alone: bool = False
    group: int = 0
