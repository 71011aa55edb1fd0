"""Samples in files too large for memory: `.npy` memory-mapped, `.parquet` by row groups."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..linalg.psd import Array
from ..process.progress import Progress
from .matrix_files import checked_suffix, one_line, stored_blocks
from .moments import Moments, streamed_moments
from .text_tables import Place

#: Size in bytes from which on files are read in blocks; smaller ones are read whole by `matrix_files`.
LARGE = 2**26


def streamed_file(path: str | Path, index_col: Place = "infer") -> Moments | None:
    """Mean and covariance of the samples in a large file, in one pass, with n² numbers and one block in memory.

    Parameters
    ----------
    path
        A `.npy` or `.parquet` matrix of real numbers, one sample per row.
    index_col
        Of a table, as in `text_tables.TextOptions`.

    Returns
    -------
    Moments or None
        None for other formats, and for files smaller than `LARGE`.

    Raises
    ------
    ValueError
        In one line, as `matrix_files.read_matrix`, or if all samples are equal.
    """
    path = Path(path)
    if not path.is_file() or path.stat().st_size < LARGE or path.suffix.lower() not in (".npy", ".parquet"):
        return None
    with one_line(path):
        checked_suffix(path)
        (total, _), blocks, _ = stored_blocks(path, index_col=index_col)
    moments = streamed_moments(_with_progress(path, total, blocks), str(path))
    spread = np.diagonal(moments.covariance)
    if not np.any(spread > (np.finfo(float).eps * np.abs(moments.mean)) ** 2 * moments.count):
        raise ValueError(f"{path}: all samples are equal: their covariance is zero")
    return moments


def _with_progress(path: Path, total: int, blocks: Iterator[Array]) -> Iterator[Array]:
    """The blocks, with a report of progress after each."""
    progress, done = Progress(f"{path.name}, samples", total), 0
    with one_line(path):
        for block in blocks:
            yield block
            done += len(block)
            progress.update(done)
