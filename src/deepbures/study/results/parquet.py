"""Tables as Parquet files: columns of the schema's types, JSON metadata, and digests by which every read is verified.

A row group holds whole cells. The footer lists their keys, and for every column of the group the digest of its values,
so a reader of some cells or columns verifies these, and an edit is noticed by whoever reads what was edited.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .atomic import digest_of, replacing

if TYPE_CHECKING:
    import pandas as pd

#: Key of the index in the footer of a file.
_INDEX = b"deepbures index"
#: Row groups hold at least so many rows, except the last.
_GROUP = 1000
#: So many small tables are put together: a table of one row takes 100 kB of memory.
_SMALL = 50


def table_of(columns: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    """Table of the given columns (arrays or lists).

    Raises
    ------
    KeyError
        If a column of the schema is missing.
    ValueError
        If a value cannot become the type of its column.
    """
    return pa.Table.from_arrays([_array(columns[field.name], field.type) for field in schema], schema=schema)


def _array(values: Any, type_: pa.DataType) -> pa.Array:
    """Arrow array without nulls, made from buffers: `pyarrow.array` imports pandas, which takes half a second."""
    if pa.types.is_string(type_):
        encoded = [str(value).encode() for value in values]
        buffers = [None, pa.py_buffer(_offsets(encoded)), pa.py_buffer(b"".join(encoded))]
        return pa.Array.from_buffers(type_, len(encoded), buffers)
    if pa.types.is_list(type_):
        offsets = _array(_offsets(values), pa.int32())
        items = np.concatenate([np.asarray(value) for value in values]) if len(values) else np.empty(0)
        return pa.ListArray.from_arrays(offsets, _array(items, type_.value_type), type=type_)
    given = np.asarray(values)
    with np.errstate(invalid="ignore"):
        array = np.ascontiguousarray(given.astype(type_.to_pandas_dtype()))
    if pa.types.is_integer(type_) and not np.array_equal(array, given):
        raise ValueError(f"values must be of type {type_}, but {given[array != given][0]} is not")
    return pa.Array.from_buffers(type_, len(array), [None, pa.py_buffer(array)])


def _offsets(values: Iterable[Sized]) -> NDArray[np.int32]:
    return np.cumsum([0, *map(len, values)], dtype=np.int32)


def write(
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
    cells = iter(cells)
    first = next(cells, None)
    if first is None:
        raise ValueError("there are no cells to collect")
    schema = first[1].schema.with_metadata({"deepbures": json.dumps(metadata, sort_keys=True)})
    groups = []
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, **_options(schema, statistics)) as file:
        for lengths, table in _groups(itertools.chain([first], cells)):
            file.write_table(table.replace_schema_metadata(schema.metadata), row_group_size=max(1, len(table)))
            groups.append([lengths, [_digest(column) for column in table.columns]])
        index = json.dumps({"groups": groups, "origin": digest_of([schema.names, metadata])})
        file.add_key_value_metadata({_INDEX: f"{digest_of(index)} {index}"})


def _groups(cells: Iterable[tuple[str, pa.Table]]) -> Iterator[tuple[list[tuple[str, int]], pa.Table]]:
    """Keys and numbers of rows of the cells in each row group, and its table."""
    lengths: list[tuple[str, int]] = []
    tables: list[pa.Table] = []
    rows = 0
    for key, table in cells:
        lengths.append((key, len(table)))
        tables.append(table)
        rows += len(table)
        if rows >= _GROUP or len(tables) == _SMALL:
            tables = [pa.concat_tables(tables).combine_chunks()]
        if rows >= _GROUP:
            yield lengths, tables[0]
            lengths, tables, rows = [], [], 0
    if tables:
        yield lengths, pa.concat_tables(tables).combine_chunks()


def _options(schema: pa.Schema, statistics: Sequence[str]) -> dict[str, Any]:
    """Options of a writer.

    The bytes of real numbers are stored as separate streams, which saves a third: values are seldom equal, but close.
    """
    names = [(field.name, _leaf(field.type)) for field in schema]
    real = [f"{name}{suffix}" for name, (type_, suffix) in names if pa.types.is_floating(type_)]
    return {
        "compression": "zstd",
        "compression_level": 9,  # 3 % smaller than by default, for a microsecond a row
        "write_page_checksum": True,
        "write_statistics": list(statistics) or False,
        "use_dictionary": [f"{name}{suffix}" for name, (type_, suffix) in names if not pa.types.is_floating(type_)],
        "column_encoding": dict.fromkeys(real, "BYTE_STREAM_SPLIT"),
    }


def _leaf(type_: pa.DataType) -> tuple[pa.DataType, str]:
    """Type of the numbers in a column, and what Parquet appends to its name for them."""
    return (type_.value_type, ".list.element") if pa.types.is_list(type_) else (type_, "")


def _digest(column: pa.ChunkedArray) -> str:
    """Digest of the type and the values of a column, the same however its buffers are laid out."""
    digest = hashlib.blake2b(f"{column.type} {len(column)} {column.null_count}".encode(), digest_size=8)
    if not column.null_count:  # there are none in a table of this package
        _update(digest, column.combine_chunks())
    return digest.hexdigest()


def _update(digest: hashlib.blake2b, array: pa.Array) -> None:
    """Add the values of an array without nulls: of strings and lists, their lengths and what they hold."""
    if pa.types.is_string(array.type) or pa.types.is_list(array.type):
        _, offsets, *text = array.buffers()
        ends = np.frombuffer(offsets or b"", np.int32)[array.offset : array.offset + len(array) + 1]
        digest.update(np.diff(ends).tobytes())
        if pa.types.is_list(array.type):
            _update(digest, array.flatten())
        elif text[0] and len(ends):
            digest.update(memoryview(text[0])[ends[0] : ends[-1]])
    elif pa.types.is_primitive(array.type):
        digest.update(np.ascontiguousarray(array.to_numpy(zero_copy_only=False)).data)
    else:
        raise ValueError(f"a table may hold numbers, strings, and lists of numbers, not values of type {array.type}")


class Table:
    """A table of an experiment, read by row groups; whatever is read is verified.

    Parameters
    ----------
    path
        File of `write`.

    Attributes
    ----------
    metadata
        Its origin, as given to `write`.
    columns
        Names of its columns.

    Raises
    ------
    ValueError
        If it is not such a file, or broken, or edited: one line that names the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with _readable(path):
            self._file = pq.ParquetFile(path, page_checksum_verification=True)
            schema, footer = self._file.schema_arrow, self._file.metadata.metadata or {}
            self.columns: list[str] = schema.names
            if b"deepbures" not in (schema.metadata or {}) or _INDEX not in footer:
                raise ValueError("it carries no deepbures metadata")
            self.metadata: dict[str, Any] = json.loads(schema.metadata[b"deepbures"])
            digest, _, index = footer[_INDEX].decode().partition(" ")
            content = json.loads(index)
            self._groups = content["groups"]
            if digest != digest_of(index) or content["origin"] != digest_of([self.columns, self.metadata]):
                raise ValueError("its names or metadata are not those that were written")
            if len(self._groups) != self._file.num_row_groups:
                raise ValueError("it has other row groups than were written")
        self._cached = functools.lru_cache(maxsize=1)(self._group)
        self._places: dict[str, tuple[int, int, int]] = {}  # number of the group, first row in it, number of rows
        for number, (cells, _) in enumerate(self._groups):
            ends = itertools.accumulate(rows for _, rows in cells)
            for (key, rows), end in zip(cells, ends, strict=True):
                self._places.setdefault(key, (number, end - rows, rows))

    def __contains__(self, key: str) -> bool:
        """Whether it holds a cell."""
        return key in self._places

    def __iter__(self) -> Iterator[str]:
        """Keys of its cells."""
        return iter(self._places)

    def cell(self, key: str, columns: Sequence[str]) -> pa.Table:
        """Columns of one cell, without metadata."""
        number, first, rows = self._places[key]
        return self._cached(number, tuple(columns)).slice(first, rows)

    def verify(self) -> None:
        """Read everything."""
        for number in range(len(self._groups)):
            self._group(number, tuple(self.columns))

    def blocks(
        self, columns: Sequence[str], show: Mapping[str, Sequence[Any]], rows: float = math.inf
    ) -> Iterator[pa.Table]:
        """Columns of the rows whose axes have one of the values to `show`, without metadata.

        They come in blocks of whole cells with at least so many rows, except the last; without `rows` in one.
        """
        empty = pa.schema([self._file.schema_arrow.field(name) for name in columns]).empty_table()
        waiting, held = [empty], 0
        for number in range(len(self._groups)):
            chosen: Any = True
            if show:
                axes = self._group(number, tuple(show))
                chosen = np.logical_and.reduce(
                    [np.isin(axes[axis].to_numpy(), list(values)) for axis, values in show.items()]
                )
            if np.any(chosen):
                table = self._group(number, tuple(columns))
                waiting.append(table if np.all(chosen) else table.filter(pa.array(chosen)))
                held += len(waiting[-1])
            if held >= rows:
                yield pa.concat_tables(waiting)
                waiting, held = [empty], 0
        yield pa.concat_tables(waiting)

    def _group(self, number: int, columns: tuple[str, ...]) -> pa.Table:
        """Columns of a row group, without metadata, verified by their digests."""
        with _readable(self.path):
            table = self._file.read_row_group(number, columns=list(columns), use_threads=False).select(columns)
            for name in columns:
                if _digest(table[name]) != self._groups[number][1][self.columns.index(name)]:
                    raise ValueError(f"the column {name} is not as it was written")
            return table.replace_schema_metadata(None)


def read(
    path: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    show: Mapping[str, Sequence[Any]] | None = None,
) -> pd.DataFrame:
    """Read a table of an experiment, and verify what is read.

    Parameters
    ----------
    path
        The file.
    columns
        Which columns; by default all.
    show
        Only the rows whose axes have one of these values.

    Raises
    ------
    ValueError
        If it is broken or was edited: one line that names the file.
    """
    table = Table(path)
    (found,) = table.blocks(table.columns if columns is None else columns, show or {})
    return found.to_pandas()


@contextlib.contextmanager
def _readable(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say in one line that a file is not what was written, whatever reading it raises: any byte of it may be wrong."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} is broken, or was edited by another program ({reason}): delete it") from None


def claimed(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The origin that a file states, not verified; empty if it states none."""
    try:
        return json.loads(pq.read_schema(path).metadata[b"deepbures"])
    except Exception:  # any byte of it may be wrong
        return {}
