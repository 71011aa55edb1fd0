"""Symmetric positive semidefinite matrices: checks, spectra, integer powers, divided differences."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating]

#: Relative size (to the largest entry or eigenvalue) below which asymmetry and negative
#: eigenvalues of an input count as rounding errors.
INPUT_TOLERANCE = 1e-8
#: Share of the larger below which the difference of two eigenvalues, or of one and ε, counts as rounding.
EQUAL = 1e-8
#: A Gram matrix whose least eigenvalue is above this share of the largest gives singular vectors about 30 times less
#: accurately than an SVD, at half its cost or less; below this share an SVD is used.
WELL_CONDITIONED = 1e-3
#: `near_diagonal_inverse_root` takes matrices whose correlations have at most this Frobenius norm: they need at most 10
#: iterations, which in a stack of hundreds take as long as an `eigh`. It does not pay below so many rows, nor in stacks
#: of ten, where calls cost more than arithmetic.
_NEAR_DIAGONAL, _FEWEST_ROWS = 0.3, 8
#: As many of them at once as the caches hold.
_AT_ONCE = 1000
_MOST_ITERATIONS = 14


def symmetrize(matrix: Array) -> Array:
    """Symmetric part (A + Aᵀ)/2 of a stack of square matrices (..., n, n)."""
    return (matrix + matrix.mT) / 2


def finite_array(name: str, value: ArrayLike, dimensions: int) -> Array:
    """Return `value` as a floating array with at least `dimensions` axes.

    float32 stays float32; everything else becomes float64.

    Raises
    ------
    ValueError
        If it has fewer axes, an empty axis, or an entry that is not a finite real number.
    """
    array = np.asarray(value)
    if array.dtype != np.float32:
        try:
            array = array.astype(np.float64, casting="same_kind", copy=False)
        except TypeError:
            raise ValueError(f"{name} must hold real numbers, not {array.dtype}") from None
    if array.ndim < dimensions or 0 in array.shape:
        raise ValueError(
            f"{name} must be a non-empty array with at least {dimensions} axes, not of shape {array.shape}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, but it holds {np.sum(~np.isfinite(array))} NaN or infinite entries")
    return array


def check_square_fits(name: str, dimension: int, itemsize: int = 8) -> None:
    """Raise ValueError, in one line, if an n × n array would not fit in the memory of this machine."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not known on every system
        return
    needed = dimension**2 * itemsize
    if needed > memory:
        raise ValueError(
            f"{name} of dimension n = {dimension} would be an n × n array of {needed / 1e9:.3g} GB, more than the "
            f"{memory / 1e9:.3g} GB of this machine; use what takes factors of k columns instead"
        )


def spectrum(name: str, covariance: ArrayLike) -> tuple[Array, Array]:
    """Eigenvalues, largest first, and eigenvectors of a covariance matrix, or of a stack of them.

    Parameters
    ----------
    name
        What to call the matrix in an error message.
    covariance : (..., n, n)
        Symmetric positive semidefinite, up to a relative 1e-8 (rounding); eigenvalues below
        n · eps · λ_1 are set to zero.

    Returns
    -------
    eigenvalues : (..., n)
        λ_1 ≥ … ≥ λ_n ≥ 0.
    eigenvectors : (..., n, n)
        Ω, one eigenvector per column.

    Raises
    ------
    ValueError
        If the matrix is not square, not finite, not symmetric, or indefinite.
    """
    matrix = finite_array(name, covariance, 2)
    if matrix.shape[-2] != matrix.shape[-1]:
        raise ValueError(f"{name} must be a square matrix, not of shape {matrix.shape}")
    scale = np.abs(matrix).max(axis=(-2, -1))
    asymmetry = np.abs(matrix - matrix.mT).max(axis=(-2, -1))
    eps = float(np.finfo(matrix.dtype).eps)
    tolerance = max(INPUT_TOLERANCE, 10 * eps)
    if np.any(asymmetry > tolerance * scale):
        raise ValueError(
            f"{name} must be symmetric, but entries differ from their transpose by up to {asymmetry.max():.3g}"
        )
    eigenvalues, eigenvectors = np.linalg.eigh(symmetrize(matrix))
    if np.any(eigenvalues[..., 0] < -tolerance * scale):
        raise ValueError(
            f"{name} must be positive semidefinite, but its smallest eigenvalue is {eigenvalues[..., 0].min():.6g}"
        )
    floor = matrix.shape[-1] * eps * np.maximum(eigenvalues[..., -1:], 0)
    eigenvalues = np.where(eigenvalues > floor, eigenvalues, 0).astype(matrix.dtype, copy=False)
    return eigenvalues[..., ::-1].copy(), eigenvectors[..., ::-1].copy()


def _rounding(larger: Array, largest: Array, dimension: int) -> Array:
    """What separates two eigenvalues from being equal to rounding: 1e-8 of the larger, and n · eps · λ_1.

    eigh gives every eigenvalue to n · eps · λ_1 only.
    """
    eps = float(np.finfo(larger.dtype).eps)
    return EQUAL * larger + dimension * eps * largest


def soft_threshold(eigenvalues: ArrayLike, threshold: ArrayLike) -> Array:
    """(λ_j − ε)_+, and exactly 0 where λ_j and ε > 0 agree to rounding.

    So rounding does not decide whether a direction with ε = λ_j exists. This decision is made only here.

    Parameters
    ----------
    eigenvalues : (..., n)
        λ_1 ≥ … ≥ λ_n ≥ 0.
    threshold
        ε ≥ 0; one number, or of shape (..., 1).
    """
    values = np.asarray(eigenvalues)
    values = values if np.issubdtype(values.dtype, np.floating) else values.astype(float)
    epsilon = np.asarray(threshold, dtype=values.dtype)
    above = values - epsilon
    least = np.where(epsilon > 0, _rounding(values, values[..., :1], values.shape[-1]), 0)
    return np.where(above > least, above, 0)


def equalized(eigenvalues: ArrayLike, threshold: float = 0.0) -> Array:
    """The spectrum with one value for eigenvalues that agree to rounding: what is tied compares equal.

    Each takes the value of the first in its group, or ε where it agrees with ε > 0. Zeros form a group of their own.

    Parameters
    ----------
    eigenvalues : (n,)
        λ_1 ≥ … ≥ λ_n ≥ 0.
    threshold
        ε ≥ 0.
    """
    values = np.array(eigenvalues, dtype=float)
    if threshold > 0 and values.size:
        larger = np.maximum(values, threshold)
        near = np.abs(values - threshold) <= _rounding(larger, values[:1], values.size)
        values[near & (values > 0)] = threshold
    apart = values[:-1] - values[1:] > _rounding(values[:-1], values[:1], values.size)
    if (apart | (values[1:] == 0)).all():
        return values
    first = 0
    for i in range(1, values.size):
        if values[first] - values[i] > _rounding(values[first], values[0], values.size) or values[i] == 0:
            first = i
        else:
            values[i] = values[first]
    return values


def integer_power(matrix: Array, exponent: int) -> Array:
    """A^p of a stack of square matrices (..., n, n), p ≥ 0, by repeated squaring: about 2 log₂ p products."""
    # np.linalg.matrix_power checks its input again in every step of a flow: for 5 × 5 matrices it takes a quarter to
    # a half longer. It gives the same bits except for p = 3, where it multiplies in another order.
    if exponent == 0:
        return np.broadcast_to(np.eye(matrix.shape[-1], dtype=matrix.dtype), matrix.shape)
    while exponent & 1 == 0:
        matrix = matrix @ matrix
        exponent >>= 1
    result = matrix
    while exponent := exponent >> 1:
        matrix = matrix @ matrix
        if exponent & 1:
            result = result @ matrix
    return result


@np.errstate(divide="ignore", invalid="ignore", over="ignore")
def near_diagonal_inverse_root(M: Array, correlations: float = _NEAR_DIAGONAL) -> tuple[Array, NDArray[np.bool_]]:
    """M^{-1/2} of those matrices of a stack, symmetric positive definite, that are nearly diagonal.

    Newton's method for Y M Y = I with the derivative of the diagonal: with d = √diag M,

        Y ← Y + (I − Y M Y)_ab / (d_a + d_b),    Y = diag(1/d) at first,

    exact to first order where M and Y are diagonal: there E M Y + Y M E = (d_a + d_b) E_ab. It converges linearly, the
    faster the smaller the correlations M_ab/(d_a d_b) are, whatever the condition of M (ours; paper.md section 11). An
    iteration takes a twelfth of the time of an `eigh`. Each matrix ends after its own number of iterations, and so gets
    the bits that it gets alone.

    Parameters
    ----------
    M : (..., n, n)
    correlations
        Largest Frobenius norm of the correlations of a matrix that is taken.

    Returns
    -------
    inverse_root : (..., n, n)
        0 where it was not found.
    found : (...)
        Whether it was found: the next iteration would leave Y M Y − I with a Frobenius norm below 2 n eps.
    """
    n, batch = M.shape[-1], M.shape[:-2]
    M = M.reshape(int(np.prod(batch, dtype=int)), n, n)
    result, found = np.zeros_like(M), np.zeros(len(M), dtype=bool)
    for start in range(0, len(M) if n >= _FEWEST_ROWS else 0, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        _near_diagonal_roots(M[part], correlations, result[part], found[part])
    return result.reshape(*batch, n, n), found.reshape(batch)[()]


def _near_diagonal_roots(M: Array, correlations: float, result: Array, found: NDArray[np.bool_]) -> None:
    """Fill in what is found for a stack M (m, n, n)."""
    n = M.shape[-1]
    tolerance = 2 * n * float(np.finfo(M.dtype).eps)
    unit = np.eye(n, dtype=M.dtype)
    d = np.sqrt(np.diagonal(M, axis1=-2, axis2=-1))
    E = unit - M / (d[:, :, None] * d[:, None, :])
    size = frobenius(E, np.empty_like(E))
    members = np.argsort(-size)  # the largest first: apart from a few, those that go on come first
    members = members[size[members] <= correlations]  # not where it is NaN
    if not members.size:
        return
    M, d, E, size = M[members], d[members], E[members], size[members]
    weight, Y, products = 1 / (d[:, :, None] + d[:, None, :]), unit / d[:, None, :], np.empty_like(M)
    before = np.ones_like(size)
    for _ in range(_MOST_ITERATIONS):
        E *= weight
        Y += E
        ended = size * size <= tolerance * before  # what the next one would be, by the rate of the last two
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
    """Frobenius norm of each matrix of a stack (m, n, n), with room for the squares, if there is some."""
    squares = np.multiply(matrices, matrices, out=squares)
    return np.sqrt(squares.reshape(len(matrices), -1).sum(axis=-1))


def well_conditioned_inverse_root(M: Array) -> tuple[Array, NDArray[np.bool_]]:
    """M^{-1/2} of those matrices of a stack, symmetric positive semidefinite, whose condition is below 1e3.

    Returns
    -------
    inverse_root : (..., n, n)
        0 or meaningless where the condition is larger.
    well : (...)
        Whether the condition is below 1e3. For a nearly diagonal matrix the diagonal decides.
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
    """Share of the largest singular value below which others count as zero: max(n, d) · eps, for (..., n, d)."""
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


def pairwise_sums(x: Array, terms: int) -> Array:
    """`geometric_sum` of all pairs of x (..., k): (..., k, k), from k logarithms and powers."""
    if terms == 1:
        return np.ones((*x.shape, x.shape[-1]))
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithm = np.log(x)
        delta = -np.abs(logarithm[..., :, None] - logarithm[..., None, :])
        ratio = np.expm1(terms * delta) / np.expm1(delta)
    power = x ** (terms - 1)
    largest = np.maximum(power[..., :, None], power[..., None, :])
    return np.where(largest == 0, 0.0, largest * np.where(delta == 0, terms, ratio))


def geometric_sum(x: ArrayLike, y: ArrayLike, terms: int) -> Array:
    """Σ_{j=1}^{N} x^{N-j} y^{j-1} = (x^N − y^N) / (x − y), without cancellation when x ≈ y.

    Parameters
    ----------
    x, y
        Non-negative, broadcast against each other.
    terms
        N ≥ 1.

    Notes
    -----
    With the larger of the two as x and δ = log(y/x) ≤ 0 it is x^{N−1} expm1(N δ) / expm1(δ).
    """
    x, y = np.broadcast_arrays(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    large, small = np.maximum(x, y), np.minimum(x, y)
    with np.errstate(divide="ignore", invalid="ignore"):
        delta = np.log(small / large)
        ratio = np.expm1(terms * delta) / np.expm1(delta)
    ratio = np.where(delta == 0, terms, ratio)  # x = y
    ratio = np.where(large == 0, float(terms == 1), ratio)  # 0⁰ = 1
    return large ** (terms - 1) * ratio
