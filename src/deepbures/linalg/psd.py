"""Symmetric positive semidefinite matrices: checks, spectra, and ties of eigenvalues."""

import os

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating]

#: Asymmetry and negative eigenvalues of an input count as rounding errors below this size, relative to its largest
#: entry or eigenvalue.
INPUT_TOLERANCE = 1e-8
#: Two eigenvalues, or an eigenvalue and ε, count as equal if they differ by at most this fraction of the larger one.
EQUAL = 1e-8


def symmetrize(matrix: Array) -> Array:
    """Symmetric part (A + Aᵀ)/2 of a stack of square matrices (..., n, n)."""
    return (matrix + matrix.mT) / 2


def finite_array(name: str, value: ArrayLike, dimensions: int) -> Array:
    """`value` as a floating-point array with at least `dimensions` axes.

    float32 stays float32; all other types become float64.

    Raises
    ------
    ValueError
        If it has fewer axes, an empty axis, or an entry that is not a finite real number; `name` is its name there.
    """
    if any(map(np.ma.isMaskedArray, value if isinstance(value, (list, tuple)) else [value])):
        raise ValueError(f"{name} must hold no masked entries: fill them, or leave out their rows, first")
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(f"{name} must be an array, but its parts have different shapes") from None
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


def memory_of_machine() -> float:
    """Memory of this machine in bytes; infinite where it is unknown."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return float("inf")


def check_square_fits(name: str, dimension: int) -> None:
    """Raise ValueError, in one line, if an n × n array of float64 would not fit in the memory of this machine."""
    needed, memory = 8 * dimension**2, memory_of_machine()
    if needed > memory:
        raise ValueError(
            f"{name} of dimension n = {dimension} would be an n × n array of {needed / 1e9:.3g} GB, more than the "
            f"{memory / 1e9:.3g} GB of this machine; use methods that work on factors of k columns"
        )


def spectrum(
    name: str, covariance: ArrayLike, *, dtype: type | None = None, tolerance: float = INPUT_TOLERANCE
) -> tuple[Array, Array]:
    """Eigenvalues, largest first, and eigenvectors of a covariance matrix, or of a stack of them.

    Parameters
    ----------
    name
        Name of the matrix in error messages.
    covariance : (..., n, n)
        Symmetric positive semidefinite, up to rounding. Eigenvalues below n · eps · λ_1 become zero.
    dtype
        Precision of the decomposition; default that of the covariance, which decides what counts as rounding in it.
    tolerance
        Asymmetry and negative eigenvalues that count as rounding, relative to the largest entry.

    Returns
    -------
    eigenvalues : (..., n)
        λ_1 ≥ … ≥ λ_n ≥ 0.
    eigenvectors : (..., n, n)
        Ω, one eigenvector per column.

    Raises
    ------
    ValueError
        If the matrix is not square, not finite, not symmetric, or indefinite, or its eigenvalues overflow.
    """
    matrix = finite_array(name, covariance, 2)
    if matrix.shape[-2] != matrix.shape[-1]:
        raise ValueError(f"{name} must be a square matrix, not of shape {matrix.shape}")
    scale = np.abs(matrix).max(axis=(-2, -1))
    asymmetry = np.abs(matrix - matrix.mT).max(axis=(-2, -1))
    tolerance = max(tolerance, 10 * float(np.finfo(matrix.dtype).eps))
    if np.any(asymmetry > tolerance * scale):
        raise ValueError(
            f"{name} must be symmetric, but entries differ from their transpose by up to {asymmetry.max():.3g}"
        )
    matrix = matrix.astype(dtype or matrix.dtype, copy=False)
    with np.errstate(over="ignore"):
        eigenvalues, eigenvectors = np.linalg.eigh(symmetrize(matrix))
    if not np.isfinite(eigenvalues).all():
        raise ValueError(f"{name} must have finite eigenvalues, but its largest entry is {scale.max():.3g}")
    if np.any(eigenvalues[..., 0] < -tolerance * scale):
        raise ValueError(
            f"{name} must be positive semidefinite, but its smallest eigenvalue is {eigenvalues[..., 0].min():.6g}"
        )
    floor = matrix.shape[-1] * float(np.finfo(matrix.dtype).eps) * np.maximum(eigenvalues[..., -1:], 0)
    eigenvalues = np.where(eigenvalues > floor, eigenvalues, 0).astype(matrix.dtype, copy=False)
    return eigenvalues[..., ::-1].copy(), eigenvectors[..., ::-1].copy()


def _rounding(larger: Array, largest: Array, dimension: int) -> Array:
    """Largest difference of two eigenvalues that counts as rounding: 1e-8 of the larger one plus n · eps · λ_1.

    The second term is the accuracy of eigh.
    """
    eps = float(np.finfo(larger.dtype).eps)
    return EQUAL * larger + dimension * eps * largest


def soft_threshold(eigenvalues: ArrayLike, epsilon: ArrayLike) -> Array:
    """(λ_j − ε)_+, and exactly 0 where λ_j and ε > 0 agree to rounding.

    The only place that decides whether a direction with λ_j ≈ ε is retained; ties within rounding count as equal.

    Parameters
    ----------
    eigenvalues : (..., n)
        λ_1 ≥ … ≥ λ_n ≥ 0.
    epsilon
        ε ≥ 0; one number, or of shape (..., 1).
    """
    values = np.asarray(eigenvalues)
    values = values if np.issubdtype(values.dtype, np.floating) else values.astype(float)
    epsilon = np.asarray(epsilon, dtype=values.dtype)
    above = values - epsilon
    least = np.where(epsilon > 0, _rounding(values, values[..., :1], values.shape[-1]), 0)
    return np.where(above > least, above, 0)


def equalized(eigenvalues: ArrayLike, epsilon: float = 0.0) -> Array:
    """The spectrum with one common value for all eigenvalues that agree to rounding, so that ties compare equal.

    Each eigenvalue takes the value of the first one in its group, or ε where it agrees with ε > 0. Zeros form a group
    of their own.

    Parameters
    ----------
    eigenvalues : (n,)
        λ_1 ≥ … ≥ λ_n ≥ 0.
    epsilon
        ε ≥ 0.
    """
    values = np.array(eigenvalues, dtype=float)
    if epsilon > 0 and values.size:
        larger = np.maximum(values, epsilon)
        near = np.abs(values - epsilon) <= _rounding(larger, values[:1], values.size)
        values[near & (values > 0)] = epsilon
    tolerance, first = _rounding(values, values[:1], values.size), 0
    for i in range(1, values.size):
        if values[first] - values[i] > tolerance[first] or values[i] == 0:
            first = i
        else:
            values[i] = values[first]
    return values
