"""Progress of long work, as log lines, or as its caller asks for."""

import logging
import sys
import time
from collections.abc import Callable

logger = logging.getLogger("deepbures")

#: A function that is called with the number of steps and the time that a run has reached.
Report = Callable[[int, float], None]
#: Seconds between two lines of `reporter`.
_INTERVAL = 1.0


def reporter(what: str, progress: bool | Report) -> Report | None:
    """What a run calls after its steps: the given function; for True one that prints a line to stderr every second.

    Parameters
    ----------
    what
        Name of the run, at the beginning of the line.
    progress
        See above; False: nothing is called.
    """
    if callable(progress):
        return progress
    last = time.monotonic()

    def print_line(steps: int, reached: float) -> None:
        nonlocal last
        if time.monotonic() - last >= _INTERVAL:
            last = time.monotonic()
            print(f"{what}: {steps} steps, t = {reached:.6g}", file=sys.stderr, flush=True)

    return print_line if progress else None


class Progress:
    """Log lines, at most one every `interval` seconds, with the finished part of some work and the time that is left.

    Parameters
    ----------
    what
        Name of the work.
    total
        Number of its parts.
    interval
        Seconds between two lines; work that takes less time logs nothing.
    """

    def __init__(self, what: str, total: int, interval: float = 10.0) -> None:
        self.what, self.total, self.interval = what, total, interval
        self._start = self._last = time.monotonic()

    def update(self, done: int) -> None:
        """Report that `done` parts are finished."""
        now = time.monotonic()
        if now - self._last < self.interval or done == 0:
            return
        self._last = now
        left = (now - self._start) * (self.total - done) / done
        logger.info(
            "%s: %d of %d (%.0f %%), at most %.0f s left", self.what, done, self.total, 100 * done / self.total, left
        )
