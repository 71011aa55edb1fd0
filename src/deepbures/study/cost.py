"""Cost of a study: the cells that are new, and their time, estimated from earlier cells of their kind."""

import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .grid import cells as grid
from .grid.cells import Part, seeds_of
from .kinds import KINDS, kind
from .results.code_digest import code_digest
from .results.store import Store, key_of, part_of, parts_of
from .run import roots

#: CPU seconds of a notebook with its kernel, and for a job to start, on a small machine.
NOTEBOOK, START = 5.0, 0.5


class Spent(NamedTuple):
    """Cost of a job: number of runs of a kind in dimension n (0 for notebooks), and CPU seconds, its start included."""

    kind: str
    dimension: int
    runs: int
    seconds: float


def note(path: str | Path, kind: str, dimension: int, runs: int) -> None:
    """Add this process to the table of what jobs took on this machine; jobs that run at the same time may share it."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(f"{kind},{dimension},{runs},{sum(os.times()[:4]):.3f}\n")  # one write, at the end of the file


def noted(path: str | Path) -> list[Spent]:
    """The lines of such a table; none if there is no table. Malformed lines are left out."""
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines() if Path(path).exists() else []
    found = []
    for line in lines:
        try:
            name, dimension, runs, seconds = line.split(",")
            spent = Spent(name, int(dimension), int(runs), float(seconds))
        except ValueError:  # cut off
            continue
        if name in (*KINDS, "notebook") and spent.runs > 0 and 0 <= spent.seconds < math.inf:
            found.append(spent)
    return found


def seconds(spent: Collection[Spent], name: str, dimension: int, jobs: int, runs: int) -> float:
    """CPU seconds that jobs take: by what such runs took here, else by `COST`, scaled by what other work took here."""
    same = [line for line in spent if (line.kind, line.dimension) == (name, dimension)]
    if same:
        return runs * sum(line.seconds for line in same) / sum(line.runs for line in same)
    expected = sum(_usual(line.kind, line.dimension, 1, line.runs) for line in spent)
    speed = sum(line.seconds for line in spent) / expected if spent else 1.0
    return speed * _usual(name, dimension, jobs, runs)


def _usual(name: str, dimension: int, jobs: int, runs: int) -> float:
    """CPU seconds on a small machine; between n and n³, the costs of a gradient in its two forms."""
    if name == "notebook":
        return NOTEBOOK * runs
    scale = max(1.0, dimension / getattr(kind(name), "COST_AT", 20)) ** 1.5
    return START * jobs + kind(name).COST * scale * runs


def of_parts(spent: Collection[Spent], block: Mapping[str, Any], parts: Collection[Part], jobs: int) -> float:
    """CPU seconds that some parts of an experiment take in so many jobs."""
    return seconds(spent, block["kind"], block["dimension"], jobs, sum(len(seeds_of(part.seeds)) for part in parts))


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
    return Store(kind(name).TABLES, parts_of(folder), folder, code_digest(*roots(name)))


def missing(config: Mapping[str, Any], experiment: str) -> dict[str, Part]:
    """The parts of an experiment's grid that are not there, by their paths."""
    store, code = cells_of(config, experiment), code_digest(*roots(config["experiments"][experiment]["kind"]))
    return {
        part.path: part
        for part in grid.parts(config, experiment)
        if key_of(part_of(part.cell.settings, part.seeds), code) not in store
    }
