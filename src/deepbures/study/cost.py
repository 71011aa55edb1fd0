"""What a study costs: which cells are new, and how long they take, judged by others of their kind."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .grid import cells as grid
from .grid.cells import Part, seeds_of
from .kinds import KINDS, kind
from .results.code_digest import code_digest
from .results.store import Store, key_of, part_of
from .run import roots

#: CPU seconds for a process to start and load what it needs.
START = 0.5
#: CPU seconds of work that is not a cell: a notebook with its kernel.
OTHERS = {"notebook": 5.0}


def cpu_seconds() -> float:
    """CPU time of this process and of those that it has waited for."""
    return sum(os.times()[:4])


class Spent(NamedTuple):
    """What a job took: runs of a kind (or notebooks), CPU seconds until they began, and then until their end."""

    kind: str
    runs: int
    start: float
    seconds: float


def note(path: str | Path, spent: Spent) -> None:
    """Add a line to the table of what jobs took on this machine; jobs that run at the same time may share it."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    line = f"{spent.kind},{spent.runs},{spent.start:.3f},{spent.seconds:.3f}\n"
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(line)  # one write, at the end of the file


def noted(path: str | Path) -> list[Spent]:
    """The lines of such a table; none if there is no table. Malformed lines are left out."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            name, runs, start, seconds = line.split(",")
            spent = Spent(name, int(runs), float(start), float(seconds))
        except ValueError:  # cut off
            continue
        if (name in KINDS or name in OTHERS) and spent.runs > 0 and 0 <= spent.start + spent.seconds < math.inf:
            found.append(spent)
    return found


@dataclass(frozen=True)
class Costs:
    """CPU seconds of work.

    Attributes
    ----------
    start
        For the start of a job.
    runs
        For one run of each kind that was measured.
    speed
        For other kinds: time here over time in the default study on a small machine.
    """

    start: float = START
    runs: Mapping[str, float] = field(default_factory=dict)
    speed: float = 1.0

    @classmethod
    def measured(cls, spent: Iterable[Spent]) -> Costs:
        """From what jobs took: the mean over runs of a kind; for other kinds, the time of all relative to `COST`."""
        lines = list(spent)
        if not lines:
            return cls()
        runs, seconds = {}, {}
        for name in {line.kind for line in lines}:
            runs[name] = sum(line.runs for line in lines if line.kind == name)
            seconds[name] = sum(line.seconds for line in lines if line.kind == name)
        usual = sum(_usual(name) * runs[name] for name in runs)
        starts = [line.start for line in lines if line.kind in KINDS]
        return cls(
            start=sum(starts) / len(starts) if starts else START,
            runs={name: seconds[name] / runs[name] for name in runs},
            speed=sum(seconds.values()) / usual,
        )

    def of_run(self, name: str) -> float:
        """For one run of a kind, or for a name in `OTHERS`."""
        return self.runs.get(name, _usual(name) * self.speed)

    def of_job(self, name: str, parts: Iterable[Part]) -> float:
        """For one job that computes some parts of an experiment of a kind, including its start."""
        return self.start + self.of_run(name) * sum(len(seeds_of(part.seeds)) for part in parts)


def _usual(name: str) -> float:
    return OTHERS[name] if name in OTHERS else kind(name).COST


def duration(time: float) -> str:
    """A time in seconds as one would say it: to the second, minute or tenth of an hour."""
    if time < 60:
        return f"{time:.0f} s"
    return f"{time / 60:.0f} min" if time < 5400 else f"{time / 3600:.1f} h"


def cells_of(config: Mapping[str, Any], experiment: str) -> Store:
    """The cells of an experiment that are there, in the folder of its results.

    Raises
    ------
    ValueError
        If a table is broken: one line that names it.
    """
    name, folder = config["experiments"][experiment]["kind"], Path(config["study"]["results"], experiment)
    return Store.of_experiment(folder, kind(name).TABLES, code_digest(*roots(name)))


def missing(config: Mapping[str, Any], experiment: str) -> dict[str, Part]:
    """The parts of an experiment's grid that are not there, by their paths."""
    store, code = cells_of(config, experiment), code_digest(*roots(config["experiments"][experiment]["kind"]))
    return {
        part.path: part
        for part in grid.parts(config, experiment)
        if key_of(part_of(part.cell.settings, part.seeds), code) not in store
    }
