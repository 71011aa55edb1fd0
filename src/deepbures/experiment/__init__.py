"""One cell of the grid: what is drawn, trained and measured for a block of seeds, as tables.

Each kind of experiment is a module of its name with `run(settings, seeds)`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import UnionType
from typing import Any

import pyarrow as pa

from .. import store
from ..progress import Progress
from ..target_files import file_of

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
_SECTIONS = ("initialization", "integration", "descent", "landscape", "sampling")


def tables_of(settings: Mapping[str, Any]) -> dict[str, pa.Schema]:
    """The tables of a cell, from `store.SCHEMAS`.

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
    if settings["kind"] not in store.SCHEMAS:
        raise ValueError(f"kind must be one of {', '.join(store.SCHEMAS)}, not {settings['kind']!r}")
    return store.SCHEMAS[settings["kind"]]


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
        The tables that `store.SCHEMAS` names for the `kind` of the cell, such as `runs` (one row a
        seed) and `trajectories` (one row a seed and sample).
    """
    schemas, kind = tables_of(settings), settings["kind"]
    module = import_module(f".{kind}", __package__)  # and no other: imports are most of the time of a short job
    parts, progress = [], Progress(f"{kind}, seeds", len(seeds))
    try:
        for part in module.run(settings, seeds):
            parts.append(part)
            progress.update(len(parts))
    except KeyError as missing:
        raise ValueError(f"the settings of a cell of kind {kind!r} lack {missing}") from missing
    metadata = {"parts": [_part(settings, seeds)], **store.provenance(f"experiment.{kind}")}
    tables = {}
    for table, schema in schemas.items():
        columns = {name: [value for part in parts for value in part[table][name]] for name in schema.names}
        tables[table] = store.table_of(columns, schema, metadata)
    return tables


def run_parts(
    parts: Sequence[tuple[Mapping[str, Any], Sequence[int]]],
    files: Mapping[str, str | os.PathLike[str]] | None = None,
) -> tuple[dict[str, list[pa.Table]], list[str]]:
    """Compute cells of one kind, each for its seeds, but for those that are there already.

    A mistake in one cell does not stop the others.

    Parameters
    ----------
    parts
        Settings and seed indices.
    files
        File of each table from an earlier call, which may be missing or broken. What the present code computed
        from the same settings, seeds and target is taken from there.

    Returns
    -------
    tables : dict
        For each table, its parts in their order, without those that failed.
    mistakes : list
        One line for each cell that failed.
    """
    kinds = sorted({str(settings.get("kind")) for settings, _ in parts})
    if len(kinds) > 1:
        raise ValueError(f"cells that are computed together must be of one kind, not {', '.join(kinds)}")
    earlier = {table: _current_parts(path, f"experiment.{kinds[0]}") for table, path in (files or {}).items()}
    computed: list[dict[str, pa.Table]] = []
    mistakes, progress = [], Progress(f"{kinds[0]}, cells", len(parts))
    for number, (settings, seeds) in enumerate(parts, start=1):
        part = _spelled(_part(settings, seeds)) if earlier else ""
        if earlier and all(part in held for held in earlier.values()):
            computed.append({table: held[part] for table, held in earlier.items()})
        else:
            try:
                computed.append(run_cell(settings, seeds))
            except ValueError as mistake:
                place = {key: value for key, value in settings.items() if isinstance(value, int | float)}
                mistakes.append(str(mistake) if len(parts) == 1 else f"{mistake} (cell {json.dumps(place)})")
        progress.update(number)
    return {table: [tables[table] for tables in computed] for table in tables_of(parts[0][0])}, mistakes


def _part(settings: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, Any]:
    """What a part of a result file is computed from."""
    part = {"cell": dict(settings), "seeds": f"{seeds[0]}-{seeds[-1]}"}
    file = file_of(settings["target"])
    return part if file is None else {**part, "target": store.checksum(file)}


def _spelled(part: Mapping[str, Any]) -> str:
    return json.dumps(part, sort_keys=True)


def _current_parts(path: str | os.PathLike[str], root: str) -> dict[str, pa.Table]:
    """The parts of a result file, if the present code computed them; none if there is no such file, or it is broken."""
    try:
        file = store.PartsFile(path)
        if {**file.metadata, "parts": 0} != {**store.provenance(root), "parts": 0}:
            return {}
        return {_spelled(part): file.read(key) for part, key in zip(file.metadata["parts"], file.keys, strict=True)}
    except (OSError, ValueError):
        return {}
