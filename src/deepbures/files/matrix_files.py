"""Matrices in files that other programs wrote: NumPy, pandas, R, MATLAB, Excel."""

import io
import itertools
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..linalg.psd import Array, memory_of_machine
from .file_kinds import TEXT, kind_of
from .moments import blocks_of, check_finite
from .text_tables import Place, Table, TextOptions, index_columns, must_not_label, read_text

TEXT_FORMATS = (".csv", ".tsv", ".txt", ".dat")
FORMATS = (".npy", ".npz", *TEXT_FORMATS, ".parquet")
#: Bytes in memory for a byte of text; and how many times its size, and beyond which size, an archive cannot hold data.
_OF_TEXT, _MOST_UNPACKED, _SMALL = 30, 100, 2**26


#: A matrix in a file: its shape, its rows in blocks, and the relative rounding error of its numbers.
Stored = tuple[tuple[int, int], Iterator[Array], float]


def read_matrix(path: str | Path, square: bool = False, **options: Any) -> Table:
    """The matrix in a file, and the precision with which it is stored.

    Parameters
    ----------
    path
        A `.npy` array, a `.npz` archive of one array, a `.parquet` table, or text (`.csv`, `.tsv`, `.txt`, `.dat`).
    square
        Whether a square matrix is expected.
    options
        How text is read: the fields of `text_tables.TextOptions`; `index_col` holds for `.parquet`, too.

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
    path, text = Path(path), TextOptions(**options)
    with one_line(path):
        suffix = checked_suffix(path, text.encoding)
        if suffix in TEXT_FORMATS:
            _must_fit(_OF_TEXT * path.stat().st_size, path)
            table = read_text(path.read_bytes(), square, text)
        else:
            shape, blocks, precision = stored_blocks(path, square, text.index_col)
            _must_fit(8 * shape[0] * shape[1], path)
            table = Table(np.concatenate([*blocks], dtype=float), precision)
    check_finite(str(path), table.values)
    return table


@contextmanager
def one_line(path: Path) -> Iterator[None]:
    """Whatever a parser raises on a file becomes ValueError: one line with the file and the fault."""
    try:
        yield
    except Exception as error:
        fault = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"{path}: {fault}") from None


def checked_suffix(path: Path, encoding: str | None = None) -> str:
    """The suffix of a file that is what its suffix says.

    Raises
    ------
    ValueError
        If there is no such file, or it is something else; the message names what it is.
    """
    if not path.is_file():
        what = "a folder" if path.is_dir() else "a pipe or device"
        raise ValueError(f"it is {what}, not a file" if path.exists() else "there is no such file")
    kind, suffix = kind_of(path), path.suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"the format must be one of {', '.join(FORMATS)}, not {suffix or 'none'!r}; it is {kind}")
    if not (kind.endswith(f"({suffix})") or (suffix in TEXT_FORMATS and (kind == TEXT or encoding))):
        raise ValueError(f"it is {kind}")
    return suffix


def _must_fit(size: int, path: Path) -> None:
    """Refuse, before it is read, what would need more memory than there is, or is out of proportion to its file."""
    if size > min(memory_of_machine(), max(_MOST_UNPACKED * path.stat().st_size, _SMALL)):
        raise ValueError(f"it would take {size / 1e9:.3g} GB of memory, more than there is or its file can hold")


def stored_blocks(path: Path, square: bool = False, index_col: Place = "infer") -> Stored:
    """The matrix in a `.npy`, `.npz` or `.parquet` file, in blocks that are read one after the other.

    Of a table, an index that pandas stored, and columns of row names, are left out.

    Raises
    ------
    Exception
        Whatever its parser raises; ValueError, if it is no matrix of real numbers, or may hold row names.
    """
    if path.suffix.lower() == ".npz":
        unpacked = _matrix(_unpacked(path))
        return unpacked.shape, iter([unpacked]), _rounding(unpacked.dtype)
    if path.suffix.lower() == ".npy":
        array = _matrix(np.load(path, mmap_mode="r", allow_pickle=False))
        if rest := path.stat().st_size - array.offset - array.nbytes:
            raise ValueError(f"{rest} bytes follow its array: save one array with numpy.save")
        return array.shape, blocks_of(array), _rounding(array.dtype)
    import pyarrow.parquet as pq
    from pyarrow import types

    file = pq.ParquetFile(path)
    schema, groups = file.schema_arrow, range(file.num_row_groups)
    stored = (schema.pandas_metadata or {}).get("index_columns", [])
    fields = [(j, field.type) for j, field in enumerate(schema) if field.name not in stored]
    of_rows = [types.is_string(of) or types.is_large_string(of) or types.is_temporal(of) for _, of in fields]
    index = index_columns(of_rows, index_col)
    fields = [field for j, field in enumerate(fields) if j not in index]
    for j, of in fields:
        if not (types.is_integer(of) or types.is_floating(of)):
            raise ValueError(f"column {schema.names[j]!r} must hold real numbers, not {of}")
    _must_fit(8 * len(fields) * max((file.metadata.row_group(i).num_rows for i in groups), default=0), path)
    # A missing value becomes NaN, and is reported by its row.
    tables = (file.read_row_group(i) for i in groups)
    blocks = (_matrix(np.column_stack([table.column(j).to_numpy() for j, _ in fields])) for table in tables)
    first = next(blocks)
    whole = np.broadcast_to([types.is_integer(of) for _, of in fields], first.shape)
    if index_col == "infer" and not (square and len(first) == len(fields)):
        must_not_label(first.T, whole.T, "index_col")
    shape = (file.metadata.num_rows, len(fields))
    return shape, itertools.chain([first], blocks), max(_rounding(of.to_pandas_dtype()) for _, of in fields)


def _unpacked(path: Path) -> Any:
    """The array in an archive of one."""
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if {"indices", "indptr", "data"} <= set(names):
            raise ValueError("it is a sparse matrix of SciPy: save matrix.toarray() with numpy.save")
        if len(names) != 1:
            raise ValueError(f"it must hold one array, not {', '.join(names[:5])}{', …' if len(names) > 5 else ''}")
        _must_fit(archive.infolist()[0].file_size, path)
        return np.load(io.BytesIO(archive.read(archive.infolist()[0])), allow_pickle=False)


def _matrix(array: Any) -> Any:
    """An array, if it is a matrix of real numbers."""
    if array.dtype.kind not in "fiub":
        raise ValueError(f"it must hold real numbers, not {array.dtype}")
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"it must hold a matrix that is not empty, not an array of shape {array.shape}")
    return array


def _rounding(dtype: Any) -> float:
    """Relative rounding error of a type of numbers, at least that of float64."""
    eps = np.finfo(dtype).eps if np.issubdtype(dtype, np.floating) else 0.0
    return max(float(eps), float(np.finfo(float).eps))
