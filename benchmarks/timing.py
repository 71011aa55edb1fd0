"""What benchmarks share: the median time of a call."""

import statistics
import time
from collections.abc import Callable

Clock = Callable[[], float]


def median(function: Callable[[], object], repeats: int = 5, clock: Clock = time.perf_counter) -> float:
    """Median seconds of a call by a clock, the first one left out."""
    function()
    return statistics.median(once(function, clock) for _ in range(repeats))


def once(function: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Seconds of one call."""
    start = clock()
    function()
    return clock() - start
