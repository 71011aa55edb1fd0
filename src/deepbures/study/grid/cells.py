"""The grid: from a configuration to cells, seed blocks and paths.

A cell is one point of an experiment's grid, a part is a cell for one block of seeds, a job computes one or more
parts. Values enter paths as canonical strings, made by `axes.canonical` and never parsed back.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Mapping
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
        Everything that the numbers of the cell depend on besides the seeds, ready for JSON. Here ε is already limited
        to λ_n where k = n and λ_n is known beforehand, and is 0 for a loss without smoothing. So cells that are the
        same problem have the same settings and the same path, and are computed once.
    """

    experiment: str
    axes: Mapping[str, float | str]
    settings: Mapping[str, Any]

    @property
    def path(self) -> str:
        """Hive-style folder, such as `epsilon=0.1/smin=1/rank=20/depth=10`."""
        spelled = {**self.axes, "epsilon": self.settings["epsilon"]}
        return "/".join(f"{axis}={canonical(value)}" for axis, value in spelled.items())


#: Keys of an experiment's block that no single cell depends on.
_OF_THE_WHOLE = ("seeds", "seeds_per_job", "grid")


def cells(config: Mapping[str, Any], experiment: str) -> list[Cell]:
    """All cells of an experiment, in grid order."""
    block = config["experiments"][experiment]
    names = axes_of(block["grid"])
    points = [dict(zip(names, values, strict=True)) for values in itertools.product(*(block["grid"][a] for a in names))]
    shared = {"study_seed": config["study"]["seed"], **{key: block[key] for key in block if key not in _OF_THE_WHOLE}}
    return [Cell(experiment, point, _settings(shared, point)) for point in points]


def _settings(shared: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of one grid point: its values replace those that all cells of the experiment share."""
    settings = dict(shared)
    for axis, value in point.items():
        settings = placed(settings, AXES[axis].of or axis, value)
    drawn = is_drawn(settings["target"])
    full_rank = settings["rank"] == settings["dimension"]  # λ_k, to which ε is limited, is known beforehand for k = n
    known = drawn and full_rank
    least = least_eigenvalue(settings["dimension"], settings["smin"], **settings["target"]) if known else None
    if not LOSSES[settings["loss"]].has_epsilon:
        settings["epsilon"] = 0
    elif least is not None:
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


def parts(config: Mapping[str, Any], experiment: str) -> list[Part]:
    """Every part of an experiment, in grid order; cells that are the same problem occur once for each grid point."""
    return [Part(*part) for part in itertools.product(cells(config, experiment), seed_blocks(config, experiment))]


#: From this many parts on, an experiment's parts share `_SHARED_JOBS` jobs, unless the configuration says otherwise.
_MANY_PARTS, _SHARED_JOBS = 1500, 256
#: Largest average number of parts per job: they go into one command, for which Linux allows 128 KiB.
MOST_PARTS = 128


def count_parts(config: Mapping[str, Any], experiment: str) -> int:
    """Number of an experiment's `parts`, without listing them."""
    sizes = map(len, config["experiments"][experiment]["grid"].values())
    return math.prod(sizes) * len(seed_blocks(config, experiment))


def shared_jobs(config: Mapping[str, Any], experiment: str) -> int:
    """Number of jobs that the parts of an experiment share; 0 where each has its own.

    The one of the configuration, doubled as often as it takes to have at most `MOST_PARTS` in a job on average.
    """
    n_parts = count_parts(config, experiment)
    number = int(config["study"].get("shared_jobs", _SHARED_JOBS if n_parts >= _MANY_PARTS else 0))
    while number and n_parts > MOST_PARTS * number:
        number *= 2
    return number


def jobs(config: Mapping[str, Any], experiment: str) -> dict[str, list[Part]]:
    """Every job of an experiment by its name, which is a path: the parts that one process computes.

    A part has a job of its own, or shares one of `study.shared_jobs`: which one depends on its path and their number
    alone, so that adding cells moves no other, unless so many are added that the number doubles. What is computed is
    found from there as well.
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
