"""Tables as Parquet files: columns of the schema's types, checksums on every page, JSON metadata."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .atomic import replacing

#: Key of the index in the footer of a file.
_INDEX = b"deepbures index"


def table_of(columns: Mapping[str, Any], schema: pa.Schema, metadata: Mapping[str, Any]) -> pa.Table:
    """Table of the given columns (arrays or lists), with JSON metadata under the key `deepbures`.

    Raises
    ------
    KeyError
        If a column of the schema is missing.
    ValueError
        If a value cannot become the type of its column.
    """
    arrays = [_array(columns[field.name], field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema.with_metadata(encoded(metadata)))


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


@contextlib.contextmanager
def writer(
    path: str | os.PathLike[str], schema: pa.Schema, statistics: Sequence[str] = ()
) -> Iterator[pq.ParquetWriter]:
    """Writer of a Parquet file that is put in place when the block succeeds; statistics of the given columns only.

    The bytes of real numbers are stored as separate streams, which saves a third: values are seldom equal, but close.
    """
    names = [(field.name, _leaf(field.type)) for field in schema]
    real = [f"{name}{suffix}" for name, (type_, suffix) in names if pa.types.is_floating(type_)]
    options: dict[str, Any] = {
        "compression": "zstd",
        "write_page_checksum": True,
        "write_statistics": list(statistics) or False,
        "use_dictionary": [f"{name}{suffix}" for name, (type_, suffix) in names if not pa.types.is_floating(type_)],
        "column_encoding": dict.fromkeys(real, "BYTE_STREAM_SPLIT"),
    }
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, **options) as opened:
        yield opened


def _leaf(type_: pa.DataType) -> tuple[pa.DataType, str]:
    """Type of the numbers in a column, and what Parquet appends to its name for them."""
    return (type_.value_type, ".list.element") if pa.types.is_list(type_) else (type_, "")


def write(path: str | os.PathLike[str], tables: Sequence[pa.Table]) -> None:
    """Write tables of one schema as one Parquet file, atomically: one row group for each.

    The metadata is that of the tables, `parts` joined.

    Raises
    ------
    ValueError
        If the tables differ in their metadata besides `parts`: they were not computed by the same code.
    """
    *common, last = [metadata_of(table) for table in tables]
    if any({**metadata, "parts": []} != {**last, "parts": []} for metadata in common):
        raise ValueError(f"the parts of {path} were computed by different code")
    whole = {**last, "parts": [part for metadata in [*common, last] for part in metadata["parts"]]}
    schema = tables[0].schema.with_metadata(encoded(whole))
    with writer(path, schema) as file:
        for table in tables:
            write_group(file, [table.replace_schema_metadata(schema.metadata)])


class Reader:
    """A Parquet file of this package, read by row groups; checksums are verified.

    Attributes
    ----------
    metadata
        See `read_metadata`.
    index
        What `write_index` wrote, or None.
    rows
        Number of rows of each row group.

    Raises
    ------
    ValueError
        If the file was not written by this package, or is broken.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with _readable(path):
            self._file = pq.ParquetFile(path, page_checksum_verification=True)
            footer = self._file.metadata
            self.rows = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
        self.metadata = metadata_of(self._file.schema_arrow, path)
        self.index = json.loads((footer.metadata or {}).get(_INDEX, b"null"))

    def read(self, group: int, columns: Sequence[str]) -> pa.Table:
        """Columns of a row group, without metadata."""
        with _readable(self.path):
            return self._file.read_row_group(group, columns=list(columns)).select(columns).replace_schema_metadata(None)


def write_group(file: pq.ParquetWriter, tables: Sequence[pa.Table]) -> None:
    """Write tables as one row group: the same bytes, wherever the tables were read from."""
    table = pa.concat_tables(tables).combine_chunks()
    file.write_table(table, row_group_size=max(1, len(table)))


def write_index(file: pq.ParquetWriter, index: Any) -> None:
    """Record in the footer of a file what its rows are, once they are written; ready for JSON."""
    file.add_key_value_metadata({_INDEX: json.dumps(index)})


@contextlib.contextmanager
def _readable(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is not a readable Parquet file: {str(error).splitlines()[0]}") from None


def metadata_of(table: pa.Table | pa.Schema, path: str | os.PathLike[str] = "the table") -> dict[str, Any]:
    """What a table was computed from, by its own metadata, and with which code and versions."""
    metadata = (table.schema if isinstance(table, pa.Table) else table).metadata or {}
    if b"deepbures" not in metadata:
        raise ValueError(f"{path} carries no deepbures metadata: it was not written by this package")
    try:
        return json.loads(metadata[b"deepbures"])
    except ValueError:
        raise ValueError(f"{path} carries damaged deepbures metadata") from None


def encoded(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Metadata as a Parquet file holds it, under the key `deepbures`."""
    return {"deepbures": json.dumps(metadata, sort_keys=True)}


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Provenance of a result file.

    Raises
    ------
    ValueError
        If the file was not written by this package, or is broken.
    """
    with _readable(path):
        return metadata_of(pq.read_schema(path), path)
