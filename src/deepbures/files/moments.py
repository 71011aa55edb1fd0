"""Mean and covariance of samples in blocks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..linalg.psd import Array, check_square_fits

#: Size of a block of samples in float64, in bytes.
_BLOCK_BYTES = 2**24
#: Number of rows of the triangle that are mirrored at a time.
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
        (1/m) Σ_i (x_i − x̄)(x_i − x̄)ᵀ (maximum likelihood).
    """

    count: int
    mean: Array
    covariance: Array


def blocks_of(samples: ArrayLike, rows: int | None = None) -> Iterator[Array]:
    """Consecutive rows of a matrix in blocks; of a memory-mapped matrix only the current block is read.

    Parameters
    ----------
    samples : (m, n)
    rows
        Number of rows of a block; by default 16 MB of float64.
    """
    matrix = np.asanyarray(samples)
    if matrix.ndim != 2:
        raise ValueError(f"samples must be a matrix, one sample per row, not of shape {matrix.shape}")
    rows = max(_BLOCK_BYTES // (8 * max(matrix.shape[1], 1)), 1) if rows is None else rows
    if rows < 1:
        raise ValueError(f"a block must have at least 1 row, not {rows}")
    return (matrix[start : start + rows] for start in range(0, len(matrix), rows))


def streamed_moments(blocks: Iterable[ArrayLike], name: str = "samples") -> Moments:
    """Mean and covariance of samples in blocks, in one pass, with memory for n² numbers and one block.

    A block of b samples y with mean ȳ joins m samples with mean x̄ and scatter matrix C = Σ_i (x_i − x̄)(x_i − x̄)ᵀ by

        C ← C + Σ_i (y_i − ȳ)(y_i − ȳ)ᵀ + (m b/(m + b)) (ȳ − x̄)(ȳ − x̄)ᵀ

    (Chan, Golub and LeVeque 1983, The American Statistician 37(3)), so that a mean that is large compared with the
    deviations costs no digits.

    Parameters
    ----------
    blocks
        Matrices (b, n), one sample per row, b ≥ 1, of any type; sums are in float64.
    name
        Name of the samples in error messages.

    Raises
    ------
    ValueError
        In one line, on blocks of different widths, fewer than 2 samples in all, or an entry that is not finite; the
        message gives its row, counted from 1.
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
    """A block as finite float64; `before` is the number of samples in earlier blocks."""
    if block.ndim != 2 or 0 in block.shape:
        raise ValueError(f"{name}: block {number} must be a matrix with rows and columns, not of shape {block.shape}")
    if block.dtype.kind not in "fiub":
        raise ValueError(f"{name}: block {number} must hold real numbers, not {block.dtype}")
    rows = block.astype(np.float64, copy=False)
    check_finite(name, rows, before)
    return rows


def check_finite(name: str, rows: Array, before: int = 0) -> None:
    """Raise ValueError, in one line, at the first entry that is not finite; `before` is the number of earlier rows."""
    for i, j in np.argwhere(~np.isfinite(rows)):
        raise ValueError(f"{name} must be finite, but row {before + i + 1}, column {j + 1} is {rows[i, j]}")
