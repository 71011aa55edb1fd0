"""Polar factors of R W and their derivatives, for the loss without smoothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..linalg.psd import Array
from ..linalg.roots import rank_tolerance

#: The same for ε = 0, where singular values cost less and critical points must be resolved to 1e-10.
_GRAM_CONDITION = 1e-5
#: Singular values below this many rank tolerances count as rounding of a product of layers.
_PRODUCT_ROUNDING = 1e3


def _thin_factor(F: Array, rank: int) -> Array:
    """Factor of the same F Fᵀ with at most `rank` columns, for F of that rank.

    Raises
    ------
    ValueError
        If F has a higher rank.
    """
    if F.shape[-1] <= rank:
        return F
    U, sigma, _ = np.linalg.svd(F, full_matrices=False)
    if rank < sigma.shape[-1] and np.any(sigma[..., rank] > rank_tolerance(F) * sigma[..., 0]):
        raise ValueError(f"W must have rank ≤ {rank} to be compared with the minimum over that rank")
    return (U * sigma[..., None, :])[..., :rank]


def _polar_factor(X: Array) -> Array:
    """U Vᵀ of X = U σ Vᵀ, without the directions in which σ vanishes to rounding."""
    tall = X if X.shape[-2] >= X.shape[-1] else X.mT
    mu, V = np.linalg.eigh(tall.mT @ tall)
    poor = mu[..., 0] <= _GRAM_CONDITION * mu[..., -1]
    sigma = np.sqrt(np.where(poor[..., None], 1, mu))
    polar = tall @ ((V / sigma[..., None, :]) @ V.mT)
    if poor.any():
        polar[poor] = _polar_by_svd(tall[poor])
    return polar if tall is X else polar.mT


def _polar_by_svd(X: Array) -> Array:
    """The same from the SVD of X (..., n, d), n ≥ d."""
    U, sigma, Vh = np.linalg.svd(X, full_matrices=False)
    kept = sigma > rank_tolerance(X) * sigma[..., :1]
    return (U * kept[..., None, :]) @ Vh


def _polar_derivative(X: Array, rank: int | None = None) -> Callable[[Array], Array]:
    """Derivative of the polar factor U Vᵀ of X = U σ Vᵀ, within the matrices of the rank of X, as a function of dX.

    With thin U, V of `rank` columns (default min(n, d)): U [(C − Cᵀ)_{ij} / (σ_i + σ_j)] Vᵀ
    + (I − U Uᵀ) dX V σ^{-1} Vᵀ + U σ^{-1} Uᵀ dX (I − V Vᵀ), C = Uᵀ dX V.

    Raises
    ------
    ValueError
        If X has another numerical rank: where a singular value vanishes the polar factor is not differentiable.
    """
    full = min(X.shape[-2:])
    rank = full if rank is None else min(rank, full)
    U, sigma, Vh = np.linalg.svd(X, full_matrices=False)
    tolerance = rank_tolerance(X) * sigma[..., 0]
    if np.any(sigma[..., rank - 1] <= tolerance):
        raise ValueError(
            f"W must have rank {rank} on the range of the target: "
            "for ε = 0 the loss is not twice differentiable at a matrix of lower rank"
        )
    if rank < full and np.any(sigma[..., rank] > _PRODUCT_ROUNDING * tolerance):
        raise ValueError(f"W must have rank {rank}, as given, and not a higher one")
    U, sigma, Vh = U[..., :rank], sigma[..., :rank], Vh[..., :rank, :]
    V = Vh.mT

    def along(dX: Array) -> Array:
        columns = dX @ V
        core = U.mT @ columns
        rotation = (core - core.mT) / (sigma[..., :, None] + sigma[..., None, :])
        derivative = U @ rotation @ Vh
        if X.shape[-2] > rank:
            derivative += ((columns - U @ core) / sigma[..., None, :]) @ Vh
        if X.shape[-1] > rank:
            rows = U.mT @ dX
            derivative += (U / sigma[..., None, :]) @ (rows - (rows @ V) @ Vh)
        return derivative

    return along
