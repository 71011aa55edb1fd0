"""Bures-Wasserstein geometry of two Gaussians: distance, transport map, geodesic, at any rank.

Everything follows from factors A = F Fᵀ and B = G Gᵀ and the singular value decomposition Gᵀ F = U σ Vᵀ; covariances
are never inverted, and no root of an n × n matrix is taken. Everything is computed in float64. Arguments may be stacks
(..., n, n), which are broadcast against each other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ..linalg.psd import Array, check_square_fits, finite_array
from ..linalg.roots import rank_tolerance
from .covariances import LowRankCovariance, Pair, factor_pair


def squared_distance(A: ArrayLike | LowRankCovariance, B: ArrayLike | LowRankCovariance) -> Array:
    """Squared Bures-Wasserstein distance, W_2² of N(0, A) and N(0, B).

    d²(A, B) = tr A + tr B − 2 tr (A^{1/2} B A^{1/2})^{1/2} = min_Q ‖F − G Q‖²_F over orthogonal Q, attained at
    Q = U Vᵀ. The sum of squares is evaluated, not the difference of traces, so that a small distance has as many digits
    as A and B determine: the relative error of d is about eps √(λ_1/λ_n) √λ_1/d for dense covariances with least
    eigenvalue λ_n, and eps √λ_1/d for factors.

    Parameters
    ----------
    A, B : (..., n, n)
        Symmetric positive semidefinite, of any ranks, or `LowRankCovariance`.

    Returns
    -------
    d² : (...)
        In float64.

    Raises
    ------
    ValueError
        On matrices that are not real, finite, symmetric and positive semidefinite, or do not fit.

    References
    ----------
    Bhatia, Jain, Lim (2019), On the Bures-Wasserstein distance between positive definite matrices.

    Examples
    --------
    >>> float(squared_distance([[4.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]))
    2.0
    """
    pair = factor_pair(A, B)
    inside = np.sum((pair.F - _aligned(pair)) ** 2, axis=(-2, -1))
    return np.asarray(inside + pair.outside * (pair.sigma - pair.tau) ** 2)[()]


def frechet_distance(
    mean_a: ArrayLike, A: ArrayLike | LowRankCovariance, mean_b: ArrayLike, B: ArrayLike | LowRankCovariance
) -> Array:
    """Fréchet distance of N(mean_a, A) and N(mean_b, B): ‖mean_a − mean_b‖² + d²(A, B), with `squared_distance` d².

    This is W_2² of the two Gaussians, without a root: the Fréchet inception distance, where they are fitted to features
    of images. For samples X and Y use `frechet_distance(*sample_moments(X), *sample_moments(Y))`: p and q < n samples
    in n dimensions cost O(n p q), and the matrix that is decomposed is p × q.

    Parameters
    ----------
    mean_a, mean_b : (..., n)
    A, B
        As in `squared_distance`, also for the errors.

    References
    ----------
    Dowson, Landau (1982), The Fréchet distance between multivariate normal distributions.
    """
    first = finite_array("mean_a", mean_a, 1).astype(float, copy=False)
    second = finite_array("mean_b", mean_b, 1).astype(float, copy=False)
    between = squared_distance(A, B)
    n = A.dimension if isinstance(A, LowRankCovariance) else np.shape(A)[-1]
    if (first.shape[-1], second.shape[-1]) != (n, n):
        raise ValueError(f"means must have n = {n} entries, as the covariances, not {first.shape} and {second.shape}")
    return np.asarray(np.sum((first - second) ** 2, axis=-1) + between)[()]


def transport_map(A: ArrayLike | LowRankCovariance, B: ArrayLike | LowRankCovariance) -> Array:
    """Optimal transport map x ↦ T x from N(0, A) to N(0, B): symmetric positive semidefinite, T A T = B.

    T = A^{-1/2} (A^{1/2} B A^{1/2})^{1/2} A^{-1/2} = G U σ^{-1} Uᵀ Gᵀ. The second form holds for a singular A as well,
    with σ^{-1} = 0 where σ = 0, wherever a map exists: where rank Gᵀ F = rank B.

    Parameters
    ----------
    A, B
        As in `squared_distance`.

    Returns
    -------
    T : (..., n, n)

    Raises
    ------
    ValueError
        As in `squared_distance`, and where no linear map takes N(0, A) to N(0, B) because A is singular in directions
        in which B has more than n · eps of tr B.
    """
    pair = factor_pair(A, B)
    check_square_fits("the transport map", pair.dimension)
    cross = pair.G.mT @ pair.F
    U, sigma, _ = np.linalg.svd(cross)
    used = sigma > rank_tolerance(cross) * sigma[..., :1]
    X = pair.G @ U
    variances = np.sum(X**2, axis=-2)
    beyond = np.sum(np.where(used, 0, variances), axis=-1)
    reachable = beyond <= pair.dimension * np.finfo(float).eps * np.sum(variances, axis=-1)
    if not np.all(reachable & ((pair.sigma > 0) | (pair.tau == 0) | (pair.outside == 0))):
        raise ValueError("A must not be singular where B is not: no linear map takes N(0, A) to N(0, B)")
    inverse = np.divide(1, sigma, out=np.zeros_like(sigma), where=used)
    inner = (X * inverse[..., None, :]) @ X.mT
    outer = np.divide(pair.tau, pair.sigma, out=np.zeros_like(pair.tau), where=pair.sigma > 0)
    return pair.embedded((inner + inner.mT) / 2, outer)


def geodesic(A: ArrayLike | LowRankCovariance, B: ArrayLike | LowRankCovariance, t: ArrayLike) -> Array:
    """Bures-Wasserstein geodesic γ(t) from A (t = 0) to B (t = 1): the covariances of displacement interpolation.

    γ(t) = ((1 − t) F + t G Q)((1 − t) F + t G Q)ᵀ with Q = U Vᵀ as in `squared_distance`. Where A is regular this is
    ((1 − t) I + t T) A ((1 − t) I + t T) with the `transport_map` T. d(γ(s), γ(t)) = |s − t| d(A, B). Where Gᵀ F is
    singular there may be several geodesics, of which this is one.

    Parameters
    ----------
    A, B
        As in `squared_distance`, also for the errors.
    t : (...)
        Between 0 and 1; broadcast against the stacks of A and B.

    Returns
    -------
    γ(t) : (..., n, n)
        Symmetric positive semidefinite.
    """
    times = finite_array("t", t, 0).astype(float, copy=False)
    if np.any((times < 0) | (times > 1)):
        raise ValueError(f"t must lie between 0 and 1, not {times.min():.6g} to {times.max():.6g}")
    pair = factor_pair(A, B)
    check_square_fits("the geodesic", pair.dimension)
    weight = times[..., None, None]
    H = (1 - weight) * pair.F + weight * _aligned(pair)
    return pair.embedded(H @ H.mT, ((1 - times) * pair.sigma + times * pair.tau) ** 2)


def _aligned(pair: Pair) -> Array:
    """G Q with the orthogonal Q = U Vᵀ, Gᵀ F = U σ Vᵀ, that brings it nearest to F."""
    U, _, Vh = np.linalg.svd(pair.G.mT @ pair.F)
    return pair.G @ (U @ Vh)
