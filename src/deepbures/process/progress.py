"""Progress of long work, as log lines."""

import logging
import time

logger = logging.getLogger("deepbures")


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
