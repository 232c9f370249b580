"""Whether a server that failed to answer in time is left alone for the moment."""

from service.core.ports import Clock


class Breaker:
    """Closed, it lets calls through. Open, it refuses them, until a probe has found that the server answers.

    Pure state: it is handed a clock, and whoever opens it sees to it that there is one probe at a time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.is_open = False
        self._patient_until = 0.0

    @property
    def patience_s(self) -> float:
        """How long a call may still wait for the first probe before it is refused, in seconds."""
        return max(0.0, self._patient_until - self._clock())

    def open(self, patience_s: float) -> bool:
        """Refuse calls from now on, but let those of the next `patience_s` wait until then for the first probe.

        Returns whether it was closed: then somebody has to begin to probe.
        """
        if self.is_open:
            return False
        self.is_open = True
        self._patient_until = self._clock() + patience_s
        return True

    def close(self) -> None:
        self.is_open = False
