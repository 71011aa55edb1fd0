"""Samples in files too large for memory, read in blocks: `.npy` memory-mapped, `.parquet` by row groups."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..linalg.psd import Array
from ..process.progress import Progress
from .moments import Moments, blocks_of, streamed_moments

#: Size in bytes from which on files are read in blocks; smaller ones are read whole by `matrix_files`.
LARGE = 2**26


def streamed_file(path: str | Path) -> Moments | None:
    """Mean and covariance of the samples in a large file, in one pass, with n² numbers and one block in memory.

    Parameters
    ----------
    path
        A `.npy` matrix of real numbers, one sample per row; or a `.parquet` table of floating-point columns without an
        index.

    Returns
    -------
    Moments or None
        None for other formats, and for files smaller than `LARGE`.

    Raises
    ------
    ValueError
        In one line, as `moments.streamed_moments`, or if all samples are equal.
    """
    path = Path(path)
    if not path.is_file() or path.stat().st_size < LARGE:
        return None
    readers = {".npy": _npy, ".parquet": _parquet}
    found = readers[path.suffix.lower()](path) if path.suffix.lower() in readers else None
    if found is None:
        return None
    total, blocks = found
    moments = streamed_moments(_with_progress(blocks, Progress(f"{path.name}, samples", total)), str(path))
    spread = np.diagonal(moments.covariance)
    if not np.any(spread > (np.finfo(float).eps * np.abs(moments.mean)) ** 2 * moments.count):
        raise ValueError(f"{path}: all samples are equal: their covariance is zero")
    return moments


def _with_progress(blocks: Iterator[Array], progress: Progress) -> Iterator[Array]:
    """The blocks, with a report of progress after each."""
    done = 0
    for block in blocks:
        yield block
        done += len(block)
        progress.update(done)


def _npy(path: Path) -> tuple[int, Iterator[Array]] | None:
    with path.open("rb") as file:
        is_numpy = file.read(6) == b"\x93NUMPY"
    matrix = np.load(path, mmap_mode="r", allow_pickle=False) if is_numpy else None
    if not isinstance(matrix, np.memmap) or matrix.ndim != 2 or matrix.dtype.kind not in "fiub":
        return None  # the reader of whole files reports its format
    if matrix.offset + matrix.nbytes < path.stat().st_size:  # more than one array
        return None
    return len(matrix), blocks_of(matrix)


def _parquet(path: Path) -> tuple[int, Iterator[Array]] | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException:
        return None
    schema = file.schema_arrow
    if (schema.pandas_metadata or {}).get("index_columns") or not all(map(pa.types.is_floating, schema.types)):
        return None  # an index, or integers that could be one: the rules for whole files decide
    groups = (file.read_row_group(i) for i in range(file.num_row_groups))
    # A missing value becomes NaN, and is reported by its row.
    return file.metadata.num_rows, (np.column_stack([column.to_numpy() for column in group]) for group in groups)
