"""Matrices in files that other programs wrote: NumPy, pandas, R, MATLAB, Excel."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .delimited_text import Table, index_columns, parse
from .file_kinds import kind_of

TEXT = (".csv", ".tsv", ".txt", ".dat")
FORMATS = (".npy", ".npz", *TEXT, ".parquet")
#: Number of bytes at the beginning of a file that say what it is.
_HEAD = 4096


def read_matrix(path: str | Path, dimension: int | None = None, square: bool = False) -> Table:
    """The matrix in a file, and the precision with which it is stored.

    Parameters
    ----------
    path
        A `.npy` array, a `.npz` archive of one array, a `.parquet` table, or text (`.csv`, `.tsv`, `.txt`, `.dat`)
        with a separator, decimal sign, heading and row names by the rules of `delimited_text`.
    dimension
        Expected number of columns, if known: it distinguishes a column that counts the rows from data.
    square
        Whether a square matrix is expected.

    Returns
    -------
    Table
        `values` in float64, without heading and row names, and the relative `precision` of the stored numbers.

    Raises
    ------
    ValueError
        In one line: if there is no such file, it has another format (which is named), it is not a matrix of finite
        real numbers, or its numbers can be read in more than one way.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if path.is_dir():
        raise ValueError(f"{path}: it is a folder, not a file")
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    try:
        with path.open("rb") as file:
            _must_be(suffix, file.read(_HEAD))
        table = _READERS.get(suffix, parse)(path.read_bytes(), dimension, square)
    except (ValueError, OSError, TypeError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        form = f" as {suffix[1:]}" if suffix in FORMATS else ""
        raise ValueError(f"{path}: cannot be read{form}: {' '.join(str(error).split())}") from None
    values = table.values
    if values.ndim != 2:
        raise ValueError(f"{path}: it must hold a matrix, not an array of shape {values.shape}")
    if values.size == 0:
        raise ValueError(f"{path}: it must hold a non-empty matrix, not one of shape {values.shape}")
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        where = f"the first in row {bad[0][0] + 1}, column {bad[0][1] + 1}"
        raise ValueError(f"{path} must be finite, but it holds {len(bad)} NaN or infinite entries, {where}")
    return table


def _must_be(suffix: str, head: bytes) -> None:
    """Refuse a file of another format, or with other content than its name says, and say what it is."""
    expected = {".npy": b"\x93NUMPY", ".npz": b"PK", ".parquet": b"PAR1"}.get(suffix)
    if expected is not None and head.startswith(expected):
        return
    kind = kind_of(head)
    if suffix not in FORMATS:
        what = f"{suffix or 'none'!r}{f', {kind}' if kind else ''}"
        raise ValueError(f"the format must be one of {', '.join(FORMATS)}, not {what}")
    if kind is not None:
        raise ValueError(f"it is {kind}")
    if expected is not None:
        raise ValueError("it is text, or in an unknown format")


def _of_array(array: np.ndarray) -> Table:
    """An array as a table, in float64."""
    if array.dtype.names:
        raise ValueError(f"it holds a structured array with the fields {', '.join(array.dtype.names)}, not a matrix")
    if array.dtype.kind not in "fiub":
        raise ValueError(f"it must hold real numbers, not {_KINDS.get(array.dtype.kind, '')}{array.dtype}")
    precision = float(np.finfo(array.dtype if array.dtype.kind == "f" else float).eps)
    return Table(array.astype(float), max(precision, float(np.finfo(float).eps)))


_KINDS = {"c": "complex numbers, ", "U": "text, ", "S": "text, ", "M": "dates, ", "m": "times, "}


def _npy(data: bytes, dimension: int | None, square: bool) -> Table:
    file = io.BytesIO(data)
    try:
        array = np.load(file, allow_pickle=False)
    except ValueError as error:
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            raise ValueError("it holds Python objects, not numbers: save array.astype(float)") from None
        raise
    if rest := data[file.tell() :]:
        what = "more than one array" if rest.startswith(b"\x93NUMPY") else f"{len(rest)} bytes after its array"
        raise ValueError(f"it holds {what}: save one array with numpy.save")
    return _of_array(array)


def _npz(data: bytes, dimension: int | None, square: bool) -> Table:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        if len(names) != 1 or not names[0].endswith(".npy"):
            inside = ", ".join(name.removesuffix(".npy") for name in names[:5]) or "nothing"
            raise ValueError(f"it must hold one array, not {inside}{', …' if len(names) > 5 else ''}")
        return _npy(archive.read(names[0]), dimension, square)


def _parquet(data: bytes, dimension: int | None, square: bool) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.ParquetFile(pa.BufferReader(data)).read()
    stored = (table.schema.pandas_metadata or {}).get("index_columns", [])
    index = {name for name in stored if isinstance(name, str)}
    index |= {name for name in table.column_names if name.startswith("__index_level_")}
    columns = [(name, table.column(i)) for i, name in enumerate(table.column_names) if name not in index]
    if not columns:
        raise ValueError("it holds no columns of numbers")
    for name, column in columns:
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise ValueError(f"row {row + 1}, column {name!r}: a value is missing")
    first = columns[0][1].type
    if not index and (pa.types.is_integer(first) or pa.types.is_string(first) or pa.types.is_large_string(first)):
        # A column that counts or names the rows may have been an index once.
        cells = [list(map(str, column.to_pylist())) for _, column in columns]
        names = [name for name, _ in columns]
        columns = columns[index_columns(names, list(zip(*cells, strict=True)), dimension, square) :]
    arrays, precision = [], float(np.finfo(float).eps)
    for name, column in columns:
        if pa.types.is_decimal(column.type):
            column = column.cast(pa.float64())
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            raise ValueError(f"column {name!r} must hold real numbers, not {column.type}")
        part = _of_array(column.to_numpy())
        arrays.append(part.values)
        precision = max(precision, part.precision)
    return Table(np.column_stack(arrays), precision)


_READERS: dict[str, Callable[[bytes, int | None, bool], Table]] = {".npy": _npy, ".npz": _npz, ".parquet": _parquet}
