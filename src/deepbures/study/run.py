"""One cell of the grid: draw, train and measure for a block of seeds, and return tables.

Each kind of experiment is a module of `kinds`.
"""

import contextlib
import itertools
import json
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..model.trajectory import StopReason
from ..process.progress import Progress, logger
from .cell.settings import Settings
from .kinds import kind
from .results import parquet, provenance
from .results.store import Job, key_of, part_of

#: The remark on runs that reach their end time where the closed form of its final rate is 0.
_ALGEBRAIC = "their tail is algebraic (ε ≥ λ_k): L − L* falls like a power of t, so a larger max_time gains little"
#: Settings of a cell, and the indices of its seeds.
Cell = tuple[Mapping[str, Any], Sequence[int]]
#: The rows of the tables of one seed of a cell.
Part = Mapping[str, Sequence[Mapping[str, Any]]]


def checked(settings: Mapping[str, Any]) -> Settings:
    """The settings of a cell, typed and checked.

    Raises
    ------
    ValueError
        In one line, if they are not those of a cell.
    """
    if "kind" not in settings:
        raise ValueError(f"the settings of a cell must hold 'kind'; they hold {', '.join(settings)}")
    if not isinstance(settings["kind"], str):
        raise ValueError(f"kind must be of type str, not {settings['kind']!r}")
    return Settings.of(settings, kind(settings["kind"]).OPTIONS)


def run_cell(settings: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, pa.Table]:
    """Compute one cell of an experiment.

    Parameters
    ----------
    settings
        `grid.Cell.settings`.
    seeds
        Seed indices.

    Returns
    -------
    dict
        The tables of its `kind`, such as `runs` (one row per seed) and `trajectories` (one row per seed and sample).
    """
    typed = checked(settings)
    parts, progress = [], Progress(f"{typed.kind}, seeds", len(seeds))
    for part in _parts([(typed, seed) for seed in seeds]):
        parts.append(part)
        progress.update(len(parts))
    return _tables(typed.kind, parts)


def run_cells(cells: Sequence[Cell]) -> list[dict[str, pa.Table]]:
    """Compute cells of one `stack_of` of their kind together: each is what `run_cell` gives, bit for bit."""
    members = [(checked(settings), seed) for settings, seeds in cells for seed in seeds]
    parts = _parts(members)
    return [_tables(settings["kind"], list(itertools.islice(parts, len(seeds)))) for settings, seeds in cells]


def _parts(members: Sequence[tuple[Settings, int]]) -> Iterator[Part]:
    """The rows of the tables of each member, a cell with a seed; the seed is their first column."""
    of_kind = kind(members[0][0].kind)
    if hasattr(of_kind, "run_stack"):
        computed = of_kind.run_stack(members)
    else:
        computed = (of_kind.run(settings, seed) for settings, seed in members)
    for (_, seed), tables in zip(members, computed, strict=True):
        yield {table: [{"seed": seed, **row} for row in rows] for table, rows in tables.items()}


def _tables(kind_of_cell: str, parts: Sequence[Part]) -> dict[str, pa.Table]:
    """The tables of a cell, from the rows of its seeds."""
    _log_ends(parts)
    return {
        table: parquet.table_of(_columns([row for part in parts for row in part[table]], schema), schema)
        for table, schema in kind(kind_of_cell).TABLES.items()
    }


def _columns(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> dict[str, list[Any]]:
    """The columns of a table from its rows and blocks of rows, see `results.schema.Tables`."""
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    lists = {field.name for field in schema if pa.types.is_list(field.type)}
    for row in rows:
        several = {name for name in columns if np.ndim(row[name]) > (name in lists)}
        length = max((len(row[name]) for name in several), default=1)
        for name, column in columns.items():
            column.extend(row[name] if name in several else [row[name]] * length)
    return columns


def _log_ends(parts: Sequence[Part]) -> None:
    """Log how many runs ended without converging, and what to change if they should converge."""
    ends: Counter[tuple[str, str]] = Counter()
    for run in (run for part in parts for run in part.get("runs", ()) if "stop_reason" in run):
        reason = run["stop_reason"]
        slow = reason == StopReason.END_TIME and run.get("sharp_rate") == 0
        ends[reason, _ALGEBRAIC if slow else StopReason(reason).remedy] += 1
    for (reason, remedy), number in ends.items():
        if reason != StopReason.CONVERGED:
            logger.info("%d of %d runs ended on %s: %s", number, ends.total(), reason, remedy)


def roots(kind: str) -> tuple[str, str]:
    """The modules whose code the cells of a kind depend on, for `code_digest`: the kind, and what assembles its tables.

    This module loads kinds by name, so it imports none of them and does not tie one to the others.
    """
    return f"study.kinds.{kind}", "study.run"


def complete(path: Path, cells: Sequence[Cell]) -> int:
    """Write the part of a job: copy the cells that exist, and compute the others.

    A mistake in one cell does not stop the others.

    Parameters
    ----------
    path
        The part (see `results.store`).
    cells
        Settings and seed indices of its cells, all of one kind.

    Returns
    -------
    int
        Number of runs (seeds of cells) that were computed.

    Raises
    ------
    ValueError
        If a cell cannot be computed: one line for each mistake.
    """
    name = checked(cells[0][0]).kind
    made = provenance.of_code(*roots(name))
    keys = [key_of(part_of(settings, f"{seeds[0]}-{seeds[-1]}"), made["code"]) for settings, seeds in cells]
    job = Job(path, kind(name).TABLES, made["code"])
    new = {key: cell for key, cell in zip(keys, cells, strict=True) if key not in job}
    logger.info("%d of %d cells are there, %d are computed", len(cells) - len(new), len(cells), len(new))
    for stack in _stacks(new):
        with contextlib.suppress(ValueError):  # computed one by one, its cells say which of them is wrong
            for key, tables in zip(stack, run_cells([new[key] for key in stack]), strict=True):
                job.add(key, tables, made)
    mistakes, progress = [], Progress(f"{name}, cells", len(new))
    for number, (key, (settings, seeds)) in enumerate(new.items(), start=1):
        try:
            if key not in job:
                job.add(key, run_cell(settings, seeds), made)
        except ValueError as mistake:
            place = {key: value for key, value in settings.items() if isinstance(value, int | float)}
            mistakes.append(str(mistake) if len(cells) == 1 else f"{mistake} (cell {json.dumps(place)})")
        progress.update(number)
    if mistakes:
        raise ValueError("; ".join(mistakes))
    job.finish(keys)
    return sum(len(seeds) for _, seeds in new.values())


def _stacks(cells: Mapping[str, Cell]) -> list[list[str]]:
    """Keys of the cells that are computed together, for each stack of more than one."""
    found: dict[Hashable, list[str]] = {}
    for key, (settings, _) in cells.items():
        stack_of = getattr(kind(settings["kind"]), "stack_of", None)
        with contextlib.suppress(ValueError):
            if stack_of and (shared := stack_of(checked(settings))) is not None:
                found.setdefault(shared, []).append(key)
    return [keys for keys in found.values() if len(keys) > 1]
