"""A clock that a test sets."""


class Time:
    """Seconds, of whatever clock a test is about."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now
