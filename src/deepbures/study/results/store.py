"""The computed cells of an experiment, each found by what it was computed from, whatever job asks for it.

They are in the tables of the experiment once these are collected, and in parts until then. The parts of one plan lie in
a folder named by the digest of what it computes, `.cells/<plan>/<job>.part`; beside each is the `.partial` to which its
job appends every cell that it computes. A part is put in place when all cells of its job are there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..grid.target import checksums_of, files_of, with_files
from .atomic import digest_of, replacing
from .parquet import Table, claimed
from .parts import Part, record
from .provenance import NAMES

#: Folder of an experiment's parts, in the folder of its tables.
FOLDER = ".cells"
#: Suffix of a part, and of the file beside it to which a job appends the cells that it computes.
PART, PARTIAL = ".part", ".partial"


def part_of(settings: Mapping[str, Any], seeds: str) -> dict[str, Any]:
    """Everything besides the code that a cell for one block of seeds is computed from, ready for JSON.

    A file counts by its checksum, wherever it is.
    """
    target = settings["target"]
    contents = dict(zip(files_of(target), checksums_of(target), strict=False))
    return {"cell": {**settings, "target": with_files(target, contents)}, "seeds": seeds}


def key_of(part: Mapping[str, Any], code: str) -> str:
    """The key of a cell: the digest of the code, and that of what the cell is computed from."""
    return f"{code}-{digest_of(part)}"


class Store:
    """The cells in parts, and in the tables of an experiment.

    Parameters
    ----------
    schemas
        Schema of each table of the experiment's kind.
    parts
        Files of cells; those that are missing or cut off hold fewer.
    tables
        Folder of the tables, which are used if all are there.
    code
        Digest of the code: tables of another version of this package hold none of its cells.

    Raises
    ------
    ValueError
        If a table is broken or was edited: one line that names it.
    """

    def __init__(
        self, schemas: Mapping[str, pa.Schema], parts: Iterable[Path], tables: Path | None = None, code: str = ""
    ) -> None:
        self.schemas = schemas
        self.parts = [Part(path) for path in parts]
        self._parts = {key: part for part in self.parts for key in part}
        self._tables: dict[str, Table] = {}
        paths = {name: tables / f"{name}.parquet" for name in schemas} if tables else {}
        if all(path.exists() and claimed(path).get("code", code) == code for path in paths.values()):
            self._tables = {name: Table(path) for name, path in paths.items()}

    def __contains__(self, key: str) -> bool:
        """Whether a cell is there."""
        return key in self._parts or (bool(self._tables) and all(key in table for table in self._tables.values()))

    def read(self, table: str, key: str) -> pa.Table:
        """A table of a cell that is there, without metadata.

        Raises
        ------
        ValueError
            If it is broken: the message names the file.
        """
        if key in self._parts:
            return self._parts[key].read(key, list(self.schemas).index(table))
        return self._tables[table].cell(key, self.schemas[table].names)

    def provenance(self, key: str) -> dict[str, Any]:
        """Code and versions that a cell was computed with."""
        if key in self._parts:
            return self._parts[key].provenance(key)
        metadata = next(iter(self._tables.values())).metadata
        return {name: metadata[name] for name in NAMES if name in metadata}


def parts_of(folder: Path) -> list[Path]:
    """Parts and partial files of all plans of an experiment, in the folder of its tables."""
    return sorted(path for path in (folder / FOLDER).rglob(f"*{PART}*") if path.suffix in (PART, PARTIAL))


class Job:
    """The cells of a job: those that are there already, and those that it computes.

    Parameters
    ----------
    path
        The part that the job makes.
    schemas, code
        See `Store`.
    """

    def __init__(self, path: Path, schemas: Mapping[str, pa.Schema], code: str) -> None:
        self.path, self._partial = path, path.with_suffix(PARTIAL)
        self._schemas = schemas
        own = Part(self._partial)
        if not own.whole:
            os.truncate(self._partial, own.end)
        self._own, self._others = set(own), Store(schemas, [])
        root = next((parent for parent in path.parents if parent.name == FOLDER), None)
        if root is not None:
            plan = root / path.relative_to(root).parts[0]  # its other jobs compute other cells
            others = [other for other in parts_of(root.parent) if plan not in other.parents]
            self._others = Store(schemas, others, root.parent, code)

    def __contains__(self, key: str) -> bool:
        """Whether a cell is there."""
        return key in self._own or key in self._others

    def add(self, key: str, tables: Mapping[str, pa.Table], provenance: Mapping[str, Any]) -> None:
        """Append a computed cell to the partial file."""
        self._partial.parent.mkdir(parents=True, exist_ok=True)
        with self._partial.open("ab") as file:
            file.write(record(key, [tables[table] for table in self._schemas], provenance))
        self._own.add(key)

    def finish(self, keys: Iterable[str]) -> None:
        """Write the part, which holds the cells with these keys."""
        own = Store(self._schemas, [self._partial])
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            for key in keys:
                store = own if key in own else self._others
                tables = [store.read(table, key) for table in self._schemas]
                file.write(record(key, tables, store.provenance(key)))


def collected(parts: Sequence[Path], keys: Iterable[str], schemas: Mapping[str, pa.Schema]) -> Store:
    """The cells in the parts of a plan.

    Raises
    ------
    ValueError
        If a part is broken, or a cell is in none of them: the message names a file.
    """
    store = Store(schemas, parts)
    for part in store.parts:
        if not part.whole:
            raise ValueError(f"{part.path} is broken: delete it and run again")
    if any(key not in store for key in keys):
        raise ValueError(f"{os.path.commonpath(parts)} lacks a cell: delete it and run again")
    return store


def tidy(parts: Sequence[Path]) -> None:
    """Delete what lies beside the parts of a plan, once they are collected: partial files, and parts of other plans."""
    root = next(parent for parent in parts[0].parents if parent.name == FOLDER)
    for path in root.rglob("*"):
        if path.is_file() and path not in parts:
            path.unlink(missing_ok=True)
