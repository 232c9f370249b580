"""Admission: how much may wait, so that waiting stays short.

A pure state machine that is handed the time. What matters to a client is not how many steps wait, but how long they
will. So the limit is the work that a process gets done in `max_wait_s`, by what its latest large batches cost it in
processor time. (Not by the clock: while Redis is slow the process has nothing to do, and may as well take more.)

A burst is no overload: a thousand sensors that speak at the full hour are answered within a tenth of a second, and
none is helped by a refusal. Only a queue that stays beyond the limit for `_PATIENCE_S` is one that will not go away by
itself. From then on the limit holds, until it has not been reached for `_CALM_S`.
"""

from random import Random

_PATIENCE_S = 0.1
_CALM_S = 1.0
_LARGE = 64
"""Timesteps in a batch from which on it tells what a step costs under load: a small one is dear, each step of it.
Where batches have fewer sessions by `max_batch`, it is as many."""
_LEAST = 64
"""Timesteps that may always wait. Where they take longer than `max_wait_s`, smaller batches would help nobody."""
_WEIGHT = 0.2
"""Of the latest batch in the mean of costs."""
_WINDOW_S = 1.0
_RETRY_S = 0.1, 10.0
_SPREAD = 0.5, 1.5
"""Those who were refused together are not to come back together."""
_REFUSING, _REFUSAL_S = 0.1, 4e-5
"""The share of a process's time that goes into refusing, and what it takes to read a request and to refuse it."""
_REFUSALS_AT_ONCE = 256
"""As many as in a tenth of a second, which is longer than a batch takes."""


class Admission:
    """See the module. `limit` is the count of waiting timesteps from which on a step is refused."""

    def __init__(
        self, *, max_queue: int, max_wait_s: float, max_batch: int = _LARGE, random: Random | None = None
    ) -> None:
        self.limit = max_queue
        self._max_queue = max_queue
        self._max_wait_s = max_wait_s
        self._large = min(_LARGE, max_batch)
        self._random = random or Random()  # noqa: S311  # nosec B311  # spreads, and guards nothing
        self._cost_s: float | None = None
        self._beyond_since: float | None = None
        self._reached_at = 0.0
        self._window_began = 0.0
        self._refused = self._refused_before = 0
        self._refusals = float(_REFUSALS_AT_ONCE)
        self._refusals_at = 0.0

    @property
    def congested(self) -> bool:
        """Whether a queue stands that does not go away by itself."""
        return self.limit < self._max_queue

    def taken(self, waiting: int, now: float) -> None:
        """Say that a batch was formed, and how many timesteps it has left waiting."""
        limit = self._acceptable()
        if waiting >= limit:
            self._reached_at = now
            if self._beyond_since is None:
                self._beyond_since = now
            if self.congested or now - self._beyond_since > _PATIENCE_S:
                self.limit = limit
        else:
            self._beyond_since = None
            if self.congested:
                self.limit = limit if now - self._reached_at < _CALM_S else self._max_queue

    def reached(self, now: float) -> None:
        """Say that somebody has to wait for room."""
        self._reached_at = now

    def worked(self, timesteps: int, busy_s: float) -> None:
        """Say that a batch has ended, and how much processor time has been used since the one before it."""
        if timesteps >= self._large:
            cost_s = busy_s / timesteps
            self._cost_s = cost_s if self._cost_s is None else self._cost_s + _WEIGHT * (cost_s - self._cost_s)

    def may_refuse(self, now: float) -> bool:
        """Return whether there is time to refuse somebody, who is refused then.

        Counted by the clock: a process that waits for Redis may as well refuse.
        """
        gained = max(now - self._refusals_at, 0.0) * _REFUSING / _REFUSAL_S
        self._refusals = min(self._refusals + gained, _REFUSALS_AT_ONCE)
        self._refusals_at = now
        if self._refusals < 1:
            return False
        self._refusals -= 1
        return True

    def refused(self, steps: int, now: float) -> float:
        """Say that steps were refused; return after how many seconds to send the next one again that is.

        That is about what it would take to serve all that was refused within a second. At twice what can be carried
        that is a second, at a tenth too much a tenth of one.
        """
        self._reached_at = now
        if now - self._window_began > _WINDOW_S:
            self._refused_before = self._refused if now - self._window_began < 2 * _WINDOW_S else 0
            self._refused = 0
            self._window_began = now
        self._refused += steps
        work_s = max(self._refused, self._refused_before) * (self._cost_s or 0.0)
        return min(max(work_s, _RETRY_S[0]), _RETRY_S[1]) * self._random.uniform(*_SPREAD)

    def _acceptable(self) -> int:
        """Return how many timesteps are done within the longest wait."""
        if not self._cost_s:
            return self._max_queue
        return min(max(int(self._max_wait_s / self._cost_s), _LEAST), self._max_queue)
