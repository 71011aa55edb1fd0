"""About how long work takes, from what a cell of each kind takes in the default study (`COST`) on a small machine."""

from __future__ import annotations

from collections.abc import Iterable

from .experiment.kinds import kind
from .grid import Part, seeds_of

#: CPU seconds for a process to start and load what it needs.
START = 1.0


def seconds(name: str, parts: Iterable[Part]) -> float:
    """CPU seconds of one job that computes some parts of an experiment of a kind, its start included."""
    return START + kind(name).COST * sum(len(seeds_of(part.seeds)) for part in parts)


def duration(time: float) -> str:
    """A time in seconds as one would say it: to the second, minute or tenth of an hour."""
    if time < 60:
        return f"{time:.0f} s"
    return f"{time / 60:.0f} min" if time < 5400 else f"{time / 3600:.1f} h"
