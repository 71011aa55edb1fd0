"""Mean and covariance of samples that are read block by block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..linalg.psd import Array, check_square_fits

#: Bytes of samples that are converted to float64 at a time.
_BLOCK_BYTES = 2**24
#: Rows of the triangle that are mirrored at a time.
_MIRRORED = 128


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of samples.

    Attributes
    ----------
    count
        m.
    mean : (n,)
        x̄.
    covariance : (n, n)
        The mean of (x − x̄)(x − x̄)ᵀ (maximum likelihood).
    """

    count: int
    mean: Array
    covariance: Array


def blocks_of(samples: ArrayLike, rows: int | None = None) -> Iterator[Array]:
    """Consecutive rows of a matrix in blocks; from a memory-mapped one only the current block is read.

    Parameters
    ----------
    samples : (m, n)
    rows
        Rows of a block; default 16 MB of them as float64.
    """
    matrix = np.asanyarray(samples)
    if matrix.ndim != 2:
        raise ValueError(f"samples must be a matrix, one sample per row, not of shape {matrix.shape}")
    rows = max(_BLOCK_BYTES // (8 * max(matrix.shape[1], 1)), 1) if rows is None else rows
    if rows < 1:
        raise ValueError(f"a block must have at least 1 row, not {rows}")
    return (matrix[start : start + rows] for start in range(0, len(matrix), rows))


def streamed_moments(blocks: Iterable[ArrayLike], name: str = "samples") -> Moments:
    """Mean and covariance of samples that come in blocks, in one pass; memory for n² numbers and one block.

    Blocks are joined by the pairwise update (Chan, Golub and LeVeque 1983, The American Statistician 37(3)): with m
    and b samples of means x̄ and ȳ, scatter + Σ (y − ȳ)(y − ȳ)ᵀ + (m b/(m + b)) (ȳ − x̄)(ȳ − x̄)ᵀ. So a mean that is large
    compared with the deviations costs no digits.

    Parameters
    ----------
    blocks
        Matrices (b, n), one sample per row, b ≥ 1; they are summed in float64 whatever their type.
    name
        What to call the samples in an error message.

    Raises
    ------
    ValueError
        In one line, on blocks of different widths, fewer than 2 samples in all, or an entry that is not finite, whose
        row is given, counted from 1.
    """
    from scipy.linalg.blas import dsyrk

    count, mean, scatter = 0, np.zeros(0), np.zeros((0, 0))
    for number, block in enumerate(blocks, start=1):
        rows = _checked_block(np.asarray(block), name, number, count)
        if count == 0:
            check_square_fits(f"the covariance of {name}", rows.shape[1])
            mean, scatter = np.zeros(rows.shape[1]), np.zeros((rows.shape[1],) * 2, order="F")
        elif rows.shape[1] != len(mean):
            raise ValueError(f"{name}: block {number} has {rows.shape[1]} columns, the ones before have {len(mean)}")
        here = rows.mean(axis=0)
        shift, total = here - mean, count + len(rows)
        # One symmetric product in place: the deviations, and the shift of the mean as an additional row.
        stacked = np.vstack([rows - here, np.sqrt(count * len(rows) / total) * shift])
        scatter = dsyrk(1.0, stacked.T, beta=1.0, c=scatter, lower=1, overwrite_c=1)
        mean = mean + shift * (len(rows) / total)
        count = total
    if count < 2:
        raise ValueError(f"{name}: an estimate needs at least 2 samples (rows), not {count}")
    scatter /= count
    for start in range(0, len(mean), _MIRRORED):  # the upper triangle from the lower one
        stop = min(start + _MIRRORED, len(mean))
        corner = np.tril(scatter[start:stop, start:stop])
        scatter[start:stop, start:stop] = corner + np.tril(corner, -1).T
        scatter[start:stop, stop:] = scatter[stop:, start:stop].T
    return Moments(count, mean, scatter)


def _checked_block(block: Array, name: str, number: int, before: int) -> Array:
    """A block as float64, all of it finite; `before` samples came before it."""
    if block.ndim != 2 or 0 in block.shape:
        raise ValueError(f"{name}: block {number} must be a matrix with rows and columns, not of shape {block.shape}")
    if block.dtype.kind not in "fiub":
        raise ValueError(f"{name}: block {number} must hold real numbers, not {block.dtype}")
    rows = block.astype(np.float64, copy=False)
    finite = np.isfinite(rows)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise ValueError(
            f"{name} must be finite, but row {before + row + 1} (block {number}, column {column + 1}) "
            f"holds {rows[row, column]}"
        )
    return rows
