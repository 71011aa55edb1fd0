"""Inverse square roots, pseudo-inverses and principal columns, from Gram matrices where these are well conditioned."""

import numpy as np
from numpy.typing import NDArray

from .psd import Array

#: Least eigenvalue of a Gram matrix, relative to the largest, above which its eigenvectors replace the singular vectors
#: of the factor. They are then about 30 times less accurate than those of an SVD, at half of its cost or less.
WELL_CONDITIONED = 1e-3
#: `near_diagonal_inverse_root` accepts matrices whose correlations have at most this Frobenius norm: they need at most
#: 10 iterations, which in a stack of hundreds take as long as an `eigh`. With fewer rows than this it does not pay, and
#: neither in stacks of ten, where calls cost more than arithmetic.
_NEAR_DIAGONAL, _FEWEST_ROWS = 0.3, 8
#: Size of the parts of a stack that fit in the caches.
_AT_ONCE = 1000
_MOST_ITERATIONS = 14


@np.errstate(divide="ignore", invalid="ignore", over="ignore")
def near_diagonal_inverse_root(M: Array) -> tuple[Array, NDArray[np.bool_]]:
    """M^{-1/2} of the nearly diagonal members of a stack of symmetric positive definite matrices.

    Newton's method for Y M Y = I with the derivative at the diagonal: with d = √diag M,

        Y ← Y + (I − Y M Y)_ab / (d_a + d_b),    Y = diag(1/d) at first,

    exact to first order where M and Y are diagonal: there E M Y + Y M E = (d_a + d_b) E_ab. It converges linearly, at a
    rate that depends on the correlations M_ab/(d_a d_b) but not on the condition of M (ours; paper.md section 11). An
    iteration takes a twelfth of the time of an `eigh`. Each member has its own number of iterations, so its result is
    bitwise the same as when it is computed alone.

    Parameters
    ----------
    M : (..., n, n)

    Returns
    -------
    inverse_root : (..., n, n)
        0 where it was not found.
    found : (...)
        Whether a further iteration would leave Y M Y − I with a Frobenius norm below 2 n eps.
    """
    n, batch = M.shape[-1], M.shape[:-2]
    M = M.reshape(int(np.prod(batch, dtype=int)), n, n)
    result, found = np.zeros_like(M), np.zeros(len(M), dtype=bool)
    for start in range(0, len(M) if n >= _FEWEST_ROWS else 0, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        _near_diagonal_roots(M[part], result[part], found[part])
    return result.reshape(*batch, n, n), found.reshape(batch)[()]


def _near_diagonal_roots(M: Array, result: Array, found: NDArray[np.bool_]) -> None:
    """Write the roots and the mask of `near_diagonal_inverse_root` for a stack M (m, n, n)."""
    n = M.shape[-1]
    tolerance = 2 * n * float(np.finfo(M.dtype).eps)
    unit = np.eye(n, dtype=M.dtype)
    d = np.sqrt(np.diagonal(M, axis1=-2, axis2=-1))
    E = unit - M / (d[:, :, None] * d[:, None, :])
    size = frobenius(E, np.empty_like(E))
    members = np.argsort(-size)  # the largest first: apart from a few, active members then come first
    members = members[size[members] <= _NEAR_DIAGONAL]  # not where it is NaN
    if not members.size:
        return
    M, d, E, size = M[members], d[members], E[members], size[members]
    weight, Y, products = 1 / (d[:, :, None] + d[:, None, :]), unit / d[:, None, :], np.empty_like(M)
    before = np.ones_like(size)
    for _ in range(_MOST_ITERATIONS):
        E *= weight
        Y += E
        ended = size * size <= tolerance * before  # the next residual, predicted by the rate of the last two
        if ended.any():
            ended &= ~found[members]
            result[members[ended]], found[members[ended]] = Y[ended], True
            count = int(np.max(np.flatnonzero(~found[members]), initial=-1)) + 1
            if not count:
                return
            members, size, M, Y = members[:count], size[:count], M[:count], Y[:count]
            E, weight, products = E[:count], weight[:count], products[:count]
        np.matmul(np.matmul(Y, M, out=products), Y, out=E)
        np.subtract(unit, E, out=E)
        before, size = size, frobenius(E, products)


def frobenius(matrices: Array, squares: Array | None = None) -> Array:
    """Frobenius norm of each matrix of a stack (m, n, n); `squares` is memory for the squares of the entries."""
    squares = np.multiply(matrices, matrices, out=squares)
    return np.sqrt(squares.reshape(len(matrices), -1).sum(axis=-1))


def well_conditioned_inverse_root(M: Array) -> tuple[Array, NDArray[np.bool_]]:
    """M^{-1/2} of the members, of a stack of symmetric positive semidefinite matrices, with a condition below 1e3.

    Returns
    -------
    inverse_root : (..., n, n)
        0 or meaningless where the condition is larger.
    well : (...)
        Whether the condition is below 1e3. For a nearly diagonal matrix its diagonal decides.
    """
    inverse_root, near = near_diagonal_inverse_root(M)
    diagonal = np.diagonal(M, axis1=-2, axis2=-1)
    well = np.asarray(near & (diagonal.min(axis=-1) > WELL_CONDITIONED * diagonal.max(axis=-1)))
    if not near.all():
        far = ~near
        mu, Q = np.linalg.eigh(M[far])
        regular = mu[..., 0] > WELL_CONDITIONED * mu[..., -1]
        root = np.sqrt(np.where(regular[..., None], mu, 1))
        inverse_root[far], well[far] = (Q / root[..., None, :]) @ Q.mT, regular
    return inverse_root, well


def rank_tolerance(matrix: Array) -> float:
    """max(n, d) · eps for (..., n, d): singular values below this fraction of the largest one count as zero."""
    return max(matrix.shape[-2:]) * float(np.finfo(matrix.dtype).eps)


def pseudo_inverse(A: Array) -> Array:
    """A⁺ of one matrix (n, d), up to `rank_tolerance`."""
    U, sigma, Vh = np.linalg.svd(A, full_matrices=False)
    inverse = np.divide(1, sigma, out=np.zeros_like(sigma), where=sigma > rank_tolerance(A) * sigma[0])
    return (Vh.T * inverse) @ U.T


def gram_pseudo_inverse(A: Array) -> Array:
    """(Aᵀ A)⁺ of one matrix (n, d), from its singular values."""
    _, sigma, Vh = np.linalg.svd(A, full_matrices=False)
    inverse = np.divide(1, sigma**2, out=np.zeros_like(sigma), where=sigma > rank_tolerance(A) * sigma[0])
    return (Vh.T * inverse) @ Vh


def principal_columns(F: Array) -> tuple[Array, Array, Array]:
    """U diag(σ), U and σ of the SVD F = U σ Vᵀ of a stack (..., n, k), k ≤ n: orthogonal columns, the longest first.

    It is F V, with V from the Gram matrix Fᵀ F where that is well conditioned.
    """
    mu, V = np.linalg.eigh(F.mT @ F)
    columns = F @ V[..., ::-1]
    sigma = np.sqrt(np.sum(columns**2, axis=-2))
    U = columns / np.where(sigma > 0, sigma, 1)[..., None, :]
    poor = ~(mu[..., 0] > WELL_CONDITIONED * mu[..., -1])
    if poor.any():
        U[poor], sigma[poor], _ = np.linalg.svd(F[poor], full_matrices=False)
        columns[poor] = U[poor] * sigma[poor][..., None, :]
    return columns, U, sigma
