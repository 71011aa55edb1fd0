"""Integer powers of matrices, and geometric sums of pairs of numbers."""

import numpy as np
from numpy.typing import ArrayLike

from .psd import Array


def integer_power(matrix: Array, exponent: int) -> Array:
    """A^p of a stack of square matrices (..., n, n), p ≥ 0, by repeated squaring: about 2 log₂ p products."""
    # np.linalg.matrix_power checks its input in every step of a flow and so takes a quarter to a half longer for 5 × 5
    # matrices. It gives the same bits except for p = 3, where it multiplies in another order.
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


def pairwise_sums(x: Array, terms: int) -> Array:
    """Σ_{j=1}^{N} x_a^{N-j} x_b^{j-1}, the `geometric_sum` of all pairs of x (..., k): (..., k, k).

    It takes only k logarithms and powers.
    """
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
    """Σ_{j=1}^{N} x^{N-j} y^{j-1} = (x^N − y^N) / (x − y), without cancellation for x ≈ y.

    Parameters
    ----------
    x, y
        Non-negative, broadcast against each other.
    terms
        N ≥ 1.

    Notes
    -----
    With x the larger of the two and δ = log(y/x) ≤ 0 it is x^{N−1} expm1(N δ) / expm1(δ).
    """
    x, y = np.broadcast_arrays(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    large, small = np.maximum(x, y), np.minimum(x, y)
    with np.errstate(divide="ignore", invalid="ignore"):
        delta = np.log(small / large)
        ratio = np.expm1(terms * delta) / np.expm1(delta)
    ratio = np.where(delta == 0, terms, ratio)  # x = y
    ratio = np.where(large == 0, float(terms == 1), ratio)  # 0⁰ = 1
    return large ** (terms - 1) * ratio
