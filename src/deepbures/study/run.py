"""One cell of the grid: what is drawn, trained and measured for a block of seeds, as tables.

Each kind of experiment is a module of `kinds`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from ..model.trajectory import StopReason
from ..process.progress import Progress, logger
from .cell.settings import Settings
from .kinds import kind
from .results import parquet, provenance
from .results.store import Store, key_of, part_of

#: Settings of a cell, and the indices of its seeds.
Cell = tuple[Mapping[str, Any], Sequence[int]]


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


def tables_of(settings: Mapping[str, Any]) -> dict[str, pa.Schema]:
    """The schemas of a cell's tables; its settings are checked first."""
    return kind(checked(settings).kind).TABLES


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
        The tables of its `kind`, such as `runs` (one row per
        seed) and `trajectories` (one row per seed and sample).
    """
    typed = checked(settings)
    parts, progress = [], Progress(f"{typed.kind}, seeds", len(seeds))
    for part in kind(typed.kind).run(typed, seeds):
        parts.append(part)
        progress.update(len(parts))
    return _tables(settings, seeds, parts)


def run_cells(cells: Sequence[Cell]) -> list[dict[str, pa.Table]]:
    """Compute cells of one `stack_of` of their kind together: each is what `run_cell` gives, bit for bit."""
    members = [(checked(settings), seed) for settings, seeds in cells for seed in seeds]
    parts = kind(members[0][0].kind).run_stack(members)
    return [_tables(settings, seeds, list(itertools.islice(parts, len(seeds)))) for settings, seeds in cells]


def _tables(
    settings: Mapping[str, Any], seeds: Sequence[int], parts: Sequence[Mapping[str, Mapping[str, Any]]]
) -> dict[str, pa.Table]:
    """The tables of a cell, from what its seeds give."""
    _log_ends(parts)
    name = settings["kind"]
    metadata = {"parts": [part_of(settings, f"{seeds[0]}-{seeds[-1]}")], **provenance.of_code(*roots(name))}
    tables = {}
    for table, schema in kind(name).TABLES.items():
        columns = {column: [value for part in parts for value in part[table][column]] for column in schema.names}
        tables[table] = parquet.table_of(columns, schema, metadata)
    return tables


def _log_ends(parts: Sequence[Mapping[str, Mapping[str, Any]]]) -> None:
    """Log how many runs ended without converging, and what to change if they should converge."""
    reasons = Counter(reason for part in parts for reason in part.get("runs", {}).get("stop_reason", ()))
    for reason, number in reasons.items():
        if reason != StopReason.CONVERGED:
            logger.info("%d of %d runs ended on %s: %s", number, reasons.total(), reason, StopReason(reason).remedy)


def roots(kind: str) -> tuple[str, str]:
    """The modules whose code the cells of a kind depend on, for `code_digest`: the kind, and what assembles its tables.

    This module loads kinds by name, so it imports none of them and does not tie one to the others.
    """
    return f"study.kinds.{kind}", "study.run"


class Completed(NamedTuple):
    """What `complete` did.

    Attributes
    ----------
    held
        What each cell that the store now holds is computed from (`store.part_of`), by its key.
    mistakes
        One line for each cell that failed.
    runs
        Number of runs (seeds of cells) that were computed, not found in the store.
    """

    held: dict[str, dict[str, Any]]
    mistakes: list[str]
    runs: int


def complete(store: Store, parts: Sequence[Cell]) -> Completed:
    """Compute the cells of one kind, each for its seeds, that a store does not hold yet, and put them there.

    A mistake in one cell does not stop the others.

    Parameters
    ----------
    store
        Where the cells go.
    parts
        Settings and seed indices.
    """
    code = provenance.of_code(*roots(parts[0][0]["kind"]))["code"]
    held: dict[str, dict[str, Any]] = {}
    runs = _complete_stacks(store, parts, code)
    mistakes, progress = [], Progress(f"{parts[0][0]['kind']}, cells", len(parts))
    for number, (settings, seeds) in enumerate(parts, start=1):
        try:
            part = part_of(settings, f"{seeds[0]}-{seeds[-1]}")
            key = key_of(part, code)
            if key not in store:
                store.add(key, run_cell(settings, seeds))
                runs += len(seeds)
            held[key] = part
        except ValueError as mistake:
            place = {key: value for key, value in settings.items() if isinstance(value, int | float)}
            mistakes.append(str(mistake) if len(parts) == 1 else f"{mistake} (cell {json.dumps(place)})")
        progress.update(number)
    return Completed(held, mistakes, runs)


def _complete_stacks(store: Store, parts: Sequence[Cell], code: str) -> int:
    """Compute the missing cells that may share a stack with others, and return the number of runs.

    A stack with a mistake is left as it is: `complete` computes its cells one by one, and says which one is wrong.
    """
    module = kind(parts[0][0]["kind"])
    stacks: dict[Hashable, list[tuple[str, Cell]]] = {}
    for cell in parts if hasattr(module, "stack_of") else ():
        settings, seeds = cell
        with contextlib.suppress(ValueError):
            shared, key = module.stack_of(checked(settings)), key_of(part_of(settings, f"{seeds[0]}-{seeds[-1]}"), code)
            if shared is not None and key not in store:
                stacks.setdefault(shared, []).append((key, cell))
    runs = 0
    for keys, cells in (zip(*stack, strict=True) for stack in stacks.values() if len(stack) > 1):
        with contextlib.suppress(ValueError):
            for key, (_, seeds), tables in zip(keys, cells, run_cells(cells), strict=True):
                store.add(key, tables)
                runs += len(seeds)
    return runs
