"""The grid: from a configuration to cells, seed blocks and paths.

A cell is one point of an experiment's grid; a job computes one cell for a block of seeds. Values enter
paths as canonical strings, made here and never parsed back.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .targets import least_eigenvalue

#: Grid axes in the order in which they nest in paths and tables.
AXES = ("epsilon", "smin", "rank", "depth")


def canonical(value: float) -> str:
    """One spelling for each number: 1 and 1.0 are "1", 1e-3 is "0.001"."""
    return f"{float(value) + 0.0:.12g}"  # + 0.0: -0.0 is "0" too


@dataclass(frozen=True)
class Cell:
    """One grid point of an experiment.

    Attributes
    ----------
    experiment
        Its name in the configuration.
    values
        Value of each axis, in the order of `AXES`.
    settings
        All that the numbers of the cell depend on, besides the seeds: ready for JSON. Here ε is limited to
        λ_n where that is known beforehand: cells that are one and the same problem have the same settings
        and the same path, and are computed once.
    """

    experiment: str
    values: tuple[float, ...]
    settings: Mapping[str, Any]

    @property
    def axes(self) -> dict[str, float]:
        """Value by axis."""
        return dict(zip(AXES, self.values, strict=True))

    @property
    def path(self) -> str:
        """Hive-style folder, such as `epsilon=0.1/smin=1/rank=20/depth=10`."""
        return "/".join(f"{axis}={canonical(self.settings[axis])}" for axis in AXES)


def cells(config: Mapping[str, Any], experiment: str) -> list[Cell]:
    """All cells of an experiment, in grid order."""
    block = config["experiments"][experiment]
    shared = {key: block[key] for key in ("dynamics", "loss", "dimension", "target", "initialization", "integration")}
    grid = [block["grid"][axis] for axis in AXES]
    n, target = block["dimension"], block["target"]

    def settings(epsilon: float, smin: float, rank: int, depth: int) -> dict[str, Any]:
        least = least_eigenvalue(n, smin, **target)
        limited = epsilon if least is None or block["loss"] != "bures-wasserstein" else min(epsilon, least)
        axes = {"epsilon": limited, "smin": smin, "rank": rank, "depth": depth}
        return {"study_seed": config["study"]["seed"], **shared, **axes}

    return [Cell(experiment, values, settings(*values)) for values in itertools.product(*grid)]


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


def jobs(config: Mapping[str, Any], experiment: str) -> Iterator[tuple[Cell, str]]:
    """Every job of an experiment: (cell, seed block), in grid order."""
    return itertools.product(cells(config, experiment), seed_blocks(config, experiment))
