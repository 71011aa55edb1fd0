"""Matrices in files that other programs wrote: NumPy, pandas, R, MATLAB, Excel."""

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..linalg.psd import memory_of_machine
from .file_kinds import kind_of
from .text_tables import Place, Table, TextOptions, index_columns, must_not_label, read_text

TEXT = (".csv", ".tsv", ".txt", ".dat")
FORMATS = (".npy", ".npz", *TEXT, ".parquet")
#: Number of bytes at the beginning of a file that say what it is.
_HEAD = 4096
#: Bytes in memory for a byte of text; and how many times its size, and beyond which size, an archive cannot hold data.
_OF_TEXT, _MOST_UNPACKED, _SMALL = 30, 100, 2**26


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
        if suffix in TEXT:
            _must_fit(_OF_TEXT * path.stat().st_size, path)
            table = read_text(path.read_bytes(), square, text)
        elif suffix == ".parquet":
            table = _parquet(path, square, text.index_col)
        else:
            table = _of_array(mapped(path) if suffix == ".npy" else _unpacked(path))
    bad = np.argwhere(~np.isfinite(table.values))
    if len(bad):
        where = f"the first in row {bad[0][0] + 1}, column {bad[0][1] + 1}"
        raise ValueError(f"{path} must be finite, but it holds {len(bad)} NaN or infinite entries, {where}")
    return table


@contextmanager
def one_line(path: Path) -> Iterator[None]:
    """Whatever a parser raises on a file becomes ValueError: one line with the file and the fault."""
    try:
        yield
    except Exception as error:
        form = f" as {path.suffix[1:].lower()}" if path.suffix.lower() in FORMATS else ""
        fault = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"{path}: cannot be read{form}: {fault}") from None


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
    with path.open("rb") as file:
        kind = kind_of(file.read(_HEAD))
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(
            f"the format must be one of {', '.join(FORMATS)}, not {suffix or 'none'!r}{f', {kind}' if kind else ''}"
        )
    if suffix in TEXT:
        is_right = kind is None or encoding is not None
    else:
        is_right = kind is not None and kind.endswith(f"({suffix})")
    if not is_right:
        raise ValueError(f"it is {kind or 'text, or in an unknown format'}")
    return suffix


def _must_fit(size: int, path: Path) -> None:
    """Refuse, before it is read, what would need more memory than there is, or is out of proportion to its file."""
    stored = path.stat().st_size
    if size > max(_MOST_UNPACKED * stored, _SMALL):
        raise ValueError(f"its {stored / 1e6:.3g} MB would become {size / 1e9:.3g} GB, as no data do: use numpy.save")
    if size > memory_of_machine():
        raise ValueError(f"it would take {size / 1e9:.3g} GB, and this machine has {memory_of_machine() / 1e9:.3g} GB")


def mapped(path: Path) -> np.memmap:
    """The array in a `.npy` file, which is read when its numbers are used.

    Raises
    ------
    Exception
        As numpy does, and ValueError if something follows the array.
    """
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if rest := path.stat().st_size - array.offset - array.nbytes:
        raise ValueError(f"{rest} bytes follow its array: save one array with numpy.save")
    return array


def _unpacked(path: Path) -> np.ndarray:
    """The array in an archive of one."""
    with zipfile.ZipFile(path) as archive:
        names = [info.filename.removesuffix(".npy") for info in archive.infolist()]
        if {"indices", "indptr", "data"} <= set(names):
            raise ValueError("it is a sparse matrix of SciPy: save matrix.toarray() with numpy.save")
        if len(names) != 1:
            raise ValueError(f"it must hold one array, not {', '.join(names[:5])}{', …' if len(names) > 5 else ''}")
        _must_fit(archive.infolist()[0].file_size, path)
        return np.load(io.BytesIO(archive.read(archive.infolist()[0])), allow_pickle=False)


def _of_array(array: np.ndarray) -> Table:
    """A matrix as a table, in float64."""
    if array.dtype.kind not in "fiub":
        raise ValueError(f"it must hold real numbers, not {array.dtype}")
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"it must hold a matrix that is not empty, not an array of shape {array.shape}")
    eps = np.finfo(array.dtype if array.dtype.kind == "f" else float).eps
    return Table(np.array(array, dtype=float), max(float(eps), float(np.finfo(float).eps)))


def _parquet(path: Path, square: bool, index_col: Place) -> Table:
    """The columns of numbers in a table, without an index that pandas stored, and without row names."""
    import pyarrow.parquet as pq
    from pyarrow import types

    file = pq.ParquetFile(path)
    _must_fit(8 * file.metadata.num_rows * file.metadata.num_columns, path)
    table = file.read()
    stored = (table.schema.pandas_metadata or {}).get("index_columns", [])
    table = table.select([j for j, name in enumerate(table.column_names) if name not in stored])
    of_rows = [
        types.is_string(type_) or types.is_large_string(type_) or types.is_temporal(type_)
        for type_ in table.schema.types
    ]
    index = index_columns(of_rows, index_col)
    table = table.select([j for j in range(len(of_rows)) if j not in index])
    for field in table.schema:
        if not (types.is_integer(field.type) or types.is_floating(field.type)):
            raise ValueError(f"column {field.name!r} must hold real numbers, not {field.type}")
    parts = [_of_array(np.atleast_2d(column.to_numpy())) for column in table.columns]
    values = np.vstack([part.values for part in parts]).T
    whole = np.broadcast_to([types.is_integer(type_) for type_ in table.schema.types], values.shape)
    must_not_label(values, whole, square, has_header=True, has_index=index_col != "infer")
    return Table(values, max(part.precision for part in parts))
