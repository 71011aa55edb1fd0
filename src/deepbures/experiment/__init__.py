"""One cell of the grid: what is drawn, trained and measured for a block of seeds, as tables.

Each kind of experiment is a module of `kinds`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any

import pyarrow as pa

from .. import parquet, provenance
from ..progress import Progress
from ..store import Store, key_of, part_of
from .kinds import kind

#: Settings that cells of every kind have.
_REQUIRED: dict[str, type | UnionType] = {
    "study_seed": int,
    "kind": str,
    "loss": str,
    "dimension": int,
    "target": dict,
    "epsilon": int | float,
    "smin": int | float,
    "rank": int,
    "depth": int,
}
#: Settings that some kinds have.
_SECTIONS = ("initialization", "integration", "descent", "landscape")


def tables_of(settings: Mapping[str, Any]) -> dict[str, pa.Schema]:
    """The schemas of a cell's tables.

    Raises
    ------
    ValueError
        If the settings are not those of a cell.
    """
    for key, type_ in _REQUIRED.items():
        if key not in settings:
            raise ValueError(f"the settings of a cell must hold {key!r}; they hold {', '.join(settings)}")
        if not isinstance(settings[key], type_):
            raise ValueError(f"{key} must be of type {getattr(type_, '__name__', type_)}, not {settings[key]!r}")
    for key in (key for key in _SECTIONS if not isinstance(settings.get(key, {}), dict)):
        raise ValueError(f"{key} must be of type dict, not {settings[key]!r}")
    return kind(settings["kind"]).TABLES


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
        The tables of its `kind`, such as `runs` (one row a
        seed) and `trajectories` (one row a seed and sample).
    """
    schemas, name = tables_of(settings), settings["kind"]
    parts, progress = [], Progress(f"{name}, seeds", len(seeds))
    try:
        for part in kind(name).run(settings, seeds):
            parts.append(part)
            progress.update(len(parts))
    except KeyError as missing:
        raise ValueError(f"the settings of a cell of kind {name!r} lack {missing}") from missing
    part = part_of(settings, f"{seeds[0]}-{seeds[-1]}")
    metadata = {"parts": [part], **provenance.of_code(root(name))}
    tables = {}
    for table, schema in schemas.items():
        columns = {name: [value for part in parts for value in part[table][name]] for name in schema.names}
        tables[table] = parquet.table_of(columns, schema, metadata)
    return tables


def root(kind: str) -> str:
    """The module whose code the cells of a kind depend on, for `code_digest`."""
    return f"experiment.kinds.{kind}"


def complete(
    store: Store, parts: Sequence[tuple[Mapping[str, Any], Sequence[int]]]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Compute those cells of one kind, each for its seeds, that a store does not hold, and put them there.

    A mistake in one cell does not stop the others.

    Parameters
    ----------
    store
        Where the cells go.
    parts
        Settings and seed indices.

    Returns
    -------
    held : dict
        What each cell that the store now holds is computed from (`store.part_of`), by its key.
    mistakes : list
        One line for each cell that failed.
    """
    code = provenance.of_code(root(parts[0][0]["kind"]))["code"]
    held: dict[str, dict[str, Any]] = {}
    mistakes, progress = [], Progress(f"{parts[0][0]['kind']}, cells", len(parts))
    for number, (settings, seeds) in enumerate(parts, start=1):
        try:
            part = part_of(settings, f"{seeds[0]}-{seeds[-1]}")
            key = key_of(part, code)
            if key not in store:
                store.add(key, run_cell(settings, seeds))
            held[key] = part
        except ValueError as mistake:
            place = {key: value for key, value in settings.items() if isinstance(value, int | float)}
            mistakes.append(str(mistake) if len(parts) == 1 else f"{mistake} (cell {json.dumps(place)})")
        progress.update(number)
    return held, mistakes
