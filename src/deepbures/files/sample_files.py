"""Samples in files too large for memory, read in blocks: `.npy` memory-mapped, `.parquet` by row groups."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..linalg.psd import Array
from ..process.progress import Progress
from .matrix_files import checked_suffix, mapped, one_line
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
    readers = {".npy": _npy, ".parquet": _parquet}
    if not path.is_file() or path.stat().st_size < LARGE or path.suffix.lower() not in readers:
        return None
    with one_line(path):
        found = readers[checked_suffix(path)](path)
    if found is None:
        return None
    total, blocks = found
    moments = streamed_moments(_with_progress(blocks, path, total), str(path))
    spread = np.diagonal(moments.covariance)
    if not np.any(spread > (np.finfo(float).eps * np.abs(moments.mean)) ** 2 * moments.count):
        raise ValueError(f"{path}: all samples are equal: their covariance is zero")
    return moments


def _with_progress(blocks: Iterator[Array], path: Path, total: int) -> Iterator[Array]:
    """The blocks, with a report of progress after each."""
    progress, done = Progress(f"{path.name}, samples", total), 0
    while True:
        with one_line(path):
            block = next(blocks, None)
        if block is None:
            return
        yield block
        done += len(block)
        progress.update(done)


def _npy(path: Path) -> tuple[int, Iterator[Array]]:
    matrix = mapped(path)
    return len(matrix), blocks_of(matrix)


def _parquet(path: Path) -> tuple[int, Iterator[Array]] | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    schema = file.schema_arrow
    if (schema.pandas_metadata or {}).get("index_columns") or not all(map(pa.types.is_floating, schema.types)):
        return None  # an index, or integers that could be one: the rules for whole files decide
    groups = (file.read_row_group(i) for i in range(file.num_row_groups))
    # A missing value becomes NaN, and is reported by its row.
    return file.metadata.num_rows, (np.column_stack([column.to_numpy() for column in group]) for group in groups)
