"""Low rank plus sparse: a covariance of rank k from a matrix with some entries corrupted.

Y = Σ* + E with Σ* of rank k and E sparse, with at most a fraction α of non-zero entries in each row and column. Two
steps alternate: E becomes the largest entries of Y − W Wᵀ (`double_threshold`), and W takes one step towards the rest,
Y − E, in one of three metrics (docs/neighbours/low_rank_plus_sparse.md):

- `frobenius`: W ← W − (W Wᵀ + E − Y) W / (2 λ_1), gradient descent on the square loss, λ_1 = ‖W(0)‖²;
- `scaled`: the same gradient times (Wᵀ W)⁺, with step ½ (ScaledGD);
- `bures-wasserstein`: R = ((Y − E)_+)^{1/2}, W ← R polar(R W), the half step towards the positive part.

The thresholding is that of Yi, Park, Chen and Caramanis (2016), as in their program and that of Tong, Ma and Chi
(2021): an entry is retained if it is among the γ α n largest of its row and of its column, γ ≥ 1. Both treat
rectangular matrices with two factors, Yi et al. with a term that balances them and, on request, a projection onto
incoherent ones; here the matrix is symmetric positive semidefinite, with one factor, which needs no balance, and no
projection.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..linalg.psd import Array, finite_array, symmetrize

METHODS = ("frobenius", "scaled", "bures-wasserstein")
#: γ: γ α n entries of each row and column are retained, more than the α n corrupted ones.
OVERSHOOT = 2.0


@dataclass(frozen=True, eq=False)
class CorruptedCovariance:
    """A covariance of low rank, and the sparse matrix added to it.

    Attributes
    ----------
    low_rank : (n, n)
        Σ*, of rank k with eigenvalues from 1 down to 1/κ in geometric steps.
    sparse : (n, n)
        E, symmetric; at most ⌊α n⌋ entries in each row and column.
    """

    low_rank: Array
    sparse: Array


@dataclass(frozen=True, eq=False)
class SparseRecovery:
    """The recovered low-rank and sparse parts.

    Attributes
    ----------
    factor : (n, k)
        W; W Wᵀ is the estimate of Σ*.
    sparse : (n, n)
        E.
    changes : (t,)
        ‖S_{j+1} − S_j‖_F / ‖S_{j+1}‖_F of each step.
    converged
        Whether the last change is at most the tolerance.
    """

    factor: Array
    sparse: Array
    changes: Array
    converged: bool


def double_threshold(A: ArrayLike, count: int) -> Array:
    """A with all entries set to 0 except those among the `count` largest in size of their row and of their column.

    All entries that tie with the last one are retained. count = 0 gives 0.
    """
    matrix = finite_array("A", A, 2)
    n, m = matrix.shape[-2:]
    if not 0 <= count <= min(n, m):
        raise ValueError(f"count must lie between 0 and {min(n, m)}, the smaller side of the matrix, not {count}")
    if count == 0:
        return np.zeros_like(matrix)
    size = np.abs(matrix)
    of_row = np.partition(size, m - count, axis=-1)[..., m - count, None]
    of_column = np.partition(size, n - count, axis=-2)[..., None, n - count, :]
    return np.where((size >= of_row) & (size >= of_column), matrix, 0)


def draw_corrupted(
    rng: np.random.Generator, dimension: int, rank: int, condition: float, share: float, magnitude: float = 1.0
) -> CorruptedCovariance:
    """Random Σ* of rank k with condition number κ, and E.

    The places of E are the `double_threshold` of a symmetric Gaussian matrix, ⌊α n⌋ in each row and column, as Tong et
    al. draw theirs; its values are uniform in ± magnitude · max |Σ*|.

    Raises
    ------
    ValueError
        On a rank, condition, share or magnitude out of range.
    """
    _check(dimension, rank, share)
    if not 1 <= condition < np.inf:
        raise ValueError(f"condition must be a finite number ≥ 1, not {condition!r}")
    if not 0 <= magnitude < np.inf:
        raise ValueError(f"magnitude must be a finite number ≥ 0, not {magnitude!r}")
    U = np.linalg.qr(rng.standard_normal((dimension, rank)))[0]
    low_rank = symmetrize((U * np.geomspace(1, 1 / condition, rank)) @ U.T)
    places = double_threshold(symmetrize(rng.standard_normal((dimension, dimension))), math.floor(share * dimension))
    values = np.triu(rng.uniform(-1, 1, (dimension, dimension)))
    values = values + np.triu(values, 1).T
    return CorruptedCovariance(low_rank, np.where(places != 0, magnitude * np.abs(low_rank).max() * values, 0))


def recover_low_rank(
    observed: ArrayLike,
    rank: int,
    share: float,
    method: str = "bures-wasserstein",
    *,
    overshoot: float = OVERSHOOT,
    n_steps: int = 1000,
    tolerance: float = 1e-10,
) -> SparseRecovery:
    """Low-rank and sparse part of a symmetric matrix.

    Parameters
    ----------
    observed : (n, n)
        Y, symmetric.
    rank
        k.
    share
        α, at least the fraction of corrupted entries in each row and column.
    method
        One of `METHODS`.
    overshoot
        γ: ⌈γ α n⌉ entries of each row and column are retained.
    n_steps, tolerance
        Largest number of steps, and the relative change of W Wᵀ in a step at which the run ends.

    Notes
    -----
    It starts from the k leading eigenpairs of Y less its double threshold of ⌈α n⌉ entries (spectral start).

    Raises
    ------
    ValueError
        On a matrix that is not finite or not symmetric, an unknown method, or numbers out of range.
    """
    Y = finite_array("observed", observed, 2).astype(float)
    n = Y.shape[-1]
    if Y.shape != (n, n) or np.abs(Y - Y.T).max() > 1e-8 * np.abs(Y).max():
        raise ValueError(f"observed must be one symmetric matrix, but is of shape {Y.shape} or not symmetric")
    _check(n, rank, share)
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if not 1 <= overshoot < np.inf:
        raise ValueError(f"overshoot must be a finite number ≥ 1, not {overshoot!r}")
    if n_steps < 1 or not 0 <= tolerance < np.inf:
        raise ValueError(f"n_steps must be at least 1 and tolerance a number ≥ 0, not {n_steps} and {tolerance}")
    Y = symmetrize(Y)
    count = min(n, math.ceil(overshoot * share * n))
    W = _leading(Y - double_threshold(Y, min(n, math.ceil(share * n))), rank)
    largest = float(np.linalg.norm(W, 2)) ** 2
    S, changes = W @ W.T, []
    sparse = np.zeros_like(Y)
    for _ in range(n_steps):
        sparse = double_threshold(Y - S, count)
        W = _step(W, Y - sparse, method, largest)
        moved = W @ W.T
        size = float(np.linalg.norm(moved))
        changes.append(float(np.linalg.norm(moved - S)) / size if size > 0 else 0.0)
        S = moved
        if changes[-1] <= tolerance:
            break
    return SparseRecovery(W, sparse, np.array(changes), changes[-1] <= tolerance)


def _step(W: Array, target: Array, method: str, largest: float) -> Array:
    """One step of W towards a symmetric target."""
    if method == "bures-wasserstein":
        eigenvalues, basis = np.linalg.eigh(target)
        root = np.sqrt(np.maximum(eigenvalues, 0))[:, None]
        U, sigma, Vh = np.linalg.svd(root * (basis.T @ W), full_matrices=False)
        positive = sigma > max(W.shape) * np.finfo(float).eps * sigma[0]
        return basis @ (root * ((U * positive) @ Vh))
    if method == "frobenius":
        return W - (W @ (W.T @ W) - target @ W) / (2 * largest) if largest > 0 else W
    U, sigma, Vh = np.linalg.svd(W, full_matrices=False)
    inverse = np.divide(1, sigma, out=np.zeros_like(sigma), where=sigma > max(W.shape) * np.finfo(float).eps * sigma[0])
    return (W + target @ ((U * inverse) @ Vh)) / 2


def _leading(A: Array, rank: int) -> Array:
    """Factor of the best approximation of A by a positive semidefinite matrix of rank ≤ k."""
    eigenvalues, basis = np.linalg.eigh(A)
    return basis[:, ::-1][:, :rank] * np.sqrt(np.maximum(eigenvalues[::-1][:rank], 0))


def _check(dimension: int, rank: int, share: float) -> None:
    if not 1 <= rank <= dimension:
        raise ValueError(f"rank must lie between 1 and the dimension {dimension}, not {rank}")
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie between 0 and 1, not {share!r}")
