"""What is not measured by a load on one server: starts, memory, how many sessions there are, how many workers.

A probe yields what it found, round by round, and may raise RuntimeError or OSError.
"""

from collections.abc import Callable, Iterator

from bench.effort import Effort
from bench.summary import Outcome

Probe = Callable[[Effort], Iterator[tuple[int, Outcome]]]
