"""The grid: from a configuration to cells, seed blocks and paths.

A cell is one point of an experiment's grid, a part is a cell for one block of seeds, and a job computes one or more
parts. Values enter paths as canonical strings (`axes.canonical`), which are never parsed.
"""

import functools
import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...losses.registry import LOSSES
from ...model.targets import least_eigenvalue
from .axes import AXES, axes_of, canonical, placed
from .target import is_drawn, limited_epsilon


@dataclass(frozen=True)
class Cell:
    """One grid point of an experiment.

    Attributes
    ----------
    experiment
        Its name in the configuration.
    axes
        Value on each axis of the experiment's grid, as configured.
    settings
        Everything besides the seeds and the code on which the results of the cell depend, ready for JSON. ε is limited
        to λ_n already where k = n and λ_n is known before the target is drawn, and is 0 for a loss without ε. So cells
        with the same problem have the same settings and path, and are computed once.
    """

    experiment: str
    axes: Mapping[str, float | str]
    settings: Mapping[str, Any]

    @property
    def path(self) -> str:
        """Folder in Hive style, such as `epsilon=0.1/smin=1/rank=20/depth=10`."""
        spelled = {**self.axes, "epsilon": self.settings["epsilon"]}
        return "/".join(f"{axis}={canonical(value)}" for axis, value in spelled.items())


#: Keys of an experiment's block on which no single cell depends.
_OF_THE_WHOLE = ("seeds", "seeds_per_job", "grid")


def cells(config: Mapping[str, Any], experiment: str) -> list[Cell]:
    """All cells of an experiment, in grid order."""
    block = config["experiments"][experiment]
    names = axes_of(block["grid"])
    shared = {"study_seed": config["study"]["seed"], **{key: block[key] for key in block if key not in _OF_THE_WHOLE}}
    grid = itertools.product(*(block["grid"][axis] for axis in names))
    points = (dict(zip(names, values, strict=True)) for values in grid)
    return [Cell(experiment, point, _settings(shared, point)) for point in points]


def _settings(shared: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of one grid point, the values of which replace those of the experiment."""
    settings = dict(shared)
    for axis, value in point.items():
        settings = placed(settings, AXES[axis].of or axis, value)
    if not LOSSES[settings["loss"]].has_epsilon:
        settings["epsilon"] = 0
    elif settings["rank"] == settings["dimension"] and is_drawn(settings["target"]):
        least = least_eigenvalue(settings["dimension"], settings["smin"], **settings["target"])
        if least is not None:
            settings["epsilon"] = _limited(settings["epsilon"], least)
    return settings


@functools.lru_cache(maxsize=None, typed=True)
def _limited(epsilon: float, least: float) -> float:
    """ε limited to λ_n of a target that is not drawn yet."""
    return limited_epsilon(epsilon, np.array([least]), 1)


def seed_blocks(config: Mapping[str, Any], experiment: str) -> list[str]:
    """Seed blocks of an experiment, such as ["0-9", "10-14"]: adding seeds adds blocks."""
    block = config["experiments"][experiment]
    seeds, size = block["seeds"], block["seeds_per_job"]
    return [f"{first}-{min(first + size, seeds) - 1}" for first in range(0, seeds, size)]


def seeds_of(block: str) -> range:
    """Seed indices of a block: "0-9" is 0, …, 9.

    Raises
    ------
    ValueError
        If it is not two integers FIRST-LAST with 0 ≤ FIRST ≤ LAST.
    """
    first, _, last = block.partition("-")
    if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
        raise ValueError(f"seeds must be FIRST-LAST with 0 ≤ FIRST ≤ LAST, such as 0-9, not {block!r}")
    return range(int(first), int(last) + 1)


@dataclass(frozen=True)
class Part:
    """One cell for one block of seeds: the smallest unit of computation."""

    cell: Cell
    seeds: str

    @property
    def path(self) -> str:
        """Its name among the jobs of the experiment: `epsilon=0.1/…/depth=10/seeds=0-9`."""
        return f"{self.cell.path}/seeds={self.seeds}"


def parts(config: Mapping[str, Any], experiment: str) -> Iterator[Part]:
    """All parts of an experiment, in grid order; a problem that several grid points have occurs once for each."""
    blocks = seed_blocks(config, experiment)
    return (Part(cell, block) for cell in cells(config, experiment) for block in blocks)


#: From this many parts on, an experiment's parts share `_SHARED_JOBS` jobs, unless the configuration says otherwise.
_MANY_PARTS, _SHARED_JOBS = 1500, 256
#: Largest average number of parts per job: they go into one command, for which Linux allows 128 KiB.
MOST_PARTS = 128


def count_parts(config: Mapping[str, Any], experiment: str) -> int:
    """Number of an experiment's parts."""
    block = config["experiments"][experiment]
    return math.prod(map(len, block["grid"].values())) * math.ceil(block["seeds"] / block["seeds_per_job"])


def shared_jobs(config: Mapping[str, Any], experiment: str) -> int:
    """Number of jobs that the parts of an experiment share; 0 if each part has a job of its own.

    It is the number in the configuration, doubled until a job has at most `MOST_PARTS` parts on average.
    """
    n_parts = count_parts(config, experiment)
    number = int(config["study"].get("shared_jobs", _SHARED_JOBS if n_parts >= _MANY_PARTS else 0))
    while number and n_parts > MOST_PARTS * number:
        number *= 2
    return number


def jobs(config: Mapping[str, Any], experiment: str) -> dict[str, list[Part]]:
    """The jobs of an experiment by name, each a list of the parts that one process computes.

    A part has a job of its own, or shares one of `study.shared_jobs` jobs. Which one depends only on its path and their
    number, so cells that are added leave the others where they are, unless the number doubles; computed cells are found
    in either case.
    """
    distinct = {part.path: part for part in parts(config, experiment)}
    number = shared_jobs(config, experiment)
    found: dict[str, list[Part]] = {}
    for path, part in distinct.items():
        name = path
        if number:
            name = f"shared/{int(hashlib.sha256(path.encode()).hexdigest()[:8], 16) % number:03}-of-{number}"
        found.setdefault(name, []).append(part)
    return found
