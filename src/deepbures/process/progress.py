"""Progress of long work, as log lines."""

from __future__ import annotations

import logging
import time

logger = logging.getLogger("deepbures")


class Progress:
    """Logs, at most once every `interval` seconds, how far a piece of work has got and how long it will still take.

    Parameters
    ----------
    what
        Name of the work.
    total
        Number of its parts.
    interval
        Seconds between two lines; shorter work logs nothing.
    """

    def __init__(self, what: str, total: int, interval: float = 10.0) -> None:
        self.what, self.total, self.interval = what, total, interval
        self._start = self._last = time.monotonic()

    def update(self, done: int) -> None:
        """Report that `done` parts are done."""
        now = time.monotonic()
        if now - self._last < self.interval or done == 0:
            return
        self._last = now
        left = (now - self._start) * (self.total - done) / done
        logger.info(
            "%s: %d of %d (%.0f %%), at most %.0f s left", self.what, done, self.total, 100 * done / self.total, left
        )
