"""The computed cells of an experiment, each found by what it was computed from, whatever job asks for it.

A cell is written once: to a file for each of its tables, `cells/<table>/<key>.parquet`. Once the experiment's tables
are collected, they hold the cell, and its files are deleted. `cells/<table>.parquet` is a second name of
`<table>.parquet` (a hard link): a table that is deleted is collected again from there.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..grid.target import checksums_of
from . import parquet, provenance
from .atomic import digest_of, link

#: Row groups hold whole cells, and at least so many rows.
_GROUP = 100


def part_of(settings: Mapping[str, Any], seeds: str) -> dict[str, Any]:
    """Everything besides the code that a part (one cell for one block of seeds) is computed from, ready for JSON."""
    part = {"cell": dict(settings), "seeds": seeds}
    checksums = checksums_of(settings["target"])
    return {**part, "target": checksums} if checksums else part


def key_of(part: Mapping[str, Any], code: str) -> str:
    """The key of a part: the digest of the code, and that of what the part is computed from."""
    return f"{code}-{digest_of(part)}"


def write_cells(
    path: str | os.PathLike[str],
    cells: Iterable[tuple[str, pa.Table]],
    metadata: Mapping[str, Any],
    statistics: Sequence[str] = (),
) -> None:
    """Write cells with their keys as one Parquet file, atomically; statistics of the given columns only.

    Raises
    ------
    ValueError
        If there are none.
    """
    index: list[tuple[str, int]] = []
    waiting: list[pa.Table] = []
    with contextlib.ExitStack() as stack:
        file = None
        for key, table in cells:
            if file is None:
                schema = table.schema.with_metadata(parquet.encoded(metadata))
                file = stack.enter_context(parquet.writer(path, schema, statistics))
            index.append((key, len(table)))
            waiting.append(table.replace_schema_metadata(schema.metadata))
            if sum(map(len, waiting)) >= _GROUP:
                parquet.write_group(file, waiting)
                waiting.clear()
        if file is None:
            raise ValueError("there are no cells to collect")
        if waiting:
            parquet.write_group(file, waiting)
        parquet.write_index(file, index)


class Cells:
    """A file of `write_cells`, read cell by cell, as a table of the given columns.

    Raises
    ------
    ValueError
        If it is not such a file, or broken.
    """

    def __init__(self, path: str | os.PathLike[str], columns: Sequence[str]) -> None:
        self._reader, self._columns = parquet.Reader(path), list(columns)
        self.provenance = {name: value for name, value in self._reader.metadata.items() if name in provenance.NAMES}
        if self._reader.index is None:
            raise ValueError(f"{path} holds no cells: it is not a file of a store")
        self._starts = [0, *itertools.accumulate(self._reader.rows)][:-1]  # of row groups
        ends = itertools.accumulate(rows for _, rows in self._reader.index)
        self._places: dict[str, tuple[int, int]] = {}  # first row, number of rows
        for (key, rows), end in zip(self._reader.index, ends, strict=True):
            self._places.setdefault(key, (end - rows, rows))
        self._group = functools.lru_cache(maxsize=1)(lambda group: self._reader.read(group, self._columns))

    def __contains__(self, key: str) -> bool:
        """Whether it holds a cell."""
        return key in self._places

    def __iter__(self) -> Iterator[str]:
        """Keys of its cells."""
        return iter(self._places)

    def read(self, key: str) -> pa.Table:
        """Table of one cell, without metadata."""
        if key not in self._places:
            raise ValueError(f"{self._reader.path} does not hold the cell that is asked for")
        first, rows = self._places[key]
        group = bisect.bisect_right(self._starts, first) - 1
        return self._group(group).slice(first - self._starts[group], rows)


class Store:
    """Computed cells of one experiment.

    Parameters
    ----------
    folder
        Where the experiment's tables are.
    schemas
        Schema of each table of its kind.
    """

    def __init__(self, folder: str | os.PathLike[str], schemas: Mapping[str, pa.Schema]) -> None:
        self.folder, self.schemas = Path(folder), schemas
        for table in schemas:
            if (self.folder / f"{table}.parquet").exists() and not self._linked(table).exists():  # from an archive
                link(self.folder / f"{table}.parquet", self._linked(table))
        self._open()

    def _open(self) -> None:
        """Find the cells that are collected."""
        self._collected: dict[str, Cells] = {}
        for table, schema in self.schemas.items():
            with contextlib.suppress(OSError, ValueError):  # missing or broken: its cells are lost
                self._collected[table] = Cells(self._linked(table), schema.names)

    def _linked(self, table: str) -> Path:
        return self.folder / "cells" / f"{table}.parquet"

    def file(self, table: str, key: str) -> Path:
        """File of a cell that is not collected."""
        return self.folder / "cells" / table / f"{key}.parquet"

    def _file_of(self, table: str, key: str) -> Cells:
        """The file that holds a cell."""
        path, collected = self.file(table, key), self._collected.get(table)
        if collected and key in collected and not path.exists():
            return collected
        try:
            return Cells(path, self.schemas[table].names)
        except FileNotFoundError:
            raise ValueError(f"{path} is missing, and {self._linked(table)} does not hold its cell either") from None

    def read(self, table: str, key: str) -> pa.Table:
        """A table of a cell, without metadata.

        Raises
        ------
        ValueError
            If it is not there, or broken: the message names the file.
        """
        return self._file_of(table, key).read(key)

    def provenance(self, key: str) -> dict[str, Any]:
        """Code and versions that a cell was computed with."""
        return self._file_of(next(iter(self.schemas)), key).provenance

    def __contains__(self, key: str) -> bool:
        """Whether all tables of a cell are there and whole."""
        try:
            return all(self.read(table, key) is not None for table in self.schemas)
        except ValueError:
            return False

    def add(self, key: str, tables: Mapping[str, pa.Table]) -> None:
        """Keep a cell, as `experiment.run_cell` gives it."""
        for table in self.schemas:
            write_cells(self.file(table, key), [(key, tables[table])], parquet.metadata_of(tables[table]))

    def settle(self, keys: Iterable[str]) -> None:
        """Delete the files of the cells with these keys, which the experiment's tables now hold.

        Other cells of this code stay, in files of their own; those of other code are deleted.
        """
        wanted = set(keys)
        codes = tuple({key.partition("-")[0] for key in wanted})
        for table, collected in self._collected.items():
            for key in set(collected) - wanted:
                if key.startswith(codes) and not self.file(table, key).exists():
                    write_cells(self.file(table, key), [(key, collected.read(key))], collected.provenance)
        for table in self.schemas:
            link(self.folder / f"{table}.parquet", self._linked(table))
        self._open()
        for table in self.schemas:
            for path in self._linked(table).with_suffix("").glob("*.parquet"):
                if path.stem in wanted or not path.stem.startswith(codes):
                    path.unlink(missing_ok=True)
