"""Quantities measured along a run, from factors F of the end-to-end covariance S = F Fᵀ; all functions take stacks."""

from collections.abc import Callable

import numpy as np

from ..linalg.powers import pairwise_sums
from ..linalg.psd import Array
from ..linalg.roots import well_conditioned_inverse_root
from ..linalg.thin import is_thin, squared_distance_to_diagonal

#: Singular values below this fraction of the largest do not count towards the rank.
RANK_TOLERANCE = 1e-2


def numerical_rank(singular_values: Array, tolerance: float = RANK_TOLERANCE) -> Array:
    """Number of singular values (last axis) above `tolerance` times the largest."""
    return np.sum(singular_values > tolerance * singular_values.max(axis=-1, keepdims=True), axis=-1)


def effective_rank(singular_values: Array) -> Array:
    """exp(−Σ p_i log p_i) with p_i = s_i / Σ s (Roy and Vetterli 2007; paper.md section 7)."""
    p = singular_values / singular_values.sum(axis=-1, keepdims=True)
    logarithm = np.log(p, out=np.zeros_like(p), where=p > 0)
    return np.exp(-np.sum(p * logarithm, axis=-1))


def least_singular_value(F: Array, rank: int) -> Array:
    """σ_k(F), the k-th singular value of F (..., n, p) with k = `rank`: 0 where F has a rank below k to rounding."""
    singular = np.linalg.svd(F, compute_uv=False)
    least, rounding = kth(singular, rank), max(F.shape[-2:]) * np.finfo(F.dtype).eps * kth(singular, 1)
    return np.where(least > rounding, least, 0.0)


def kth(singular_values: Array, rank: int) -> Array:
    """σ_k of the singular values on the last axis (largest first), k = `rank`: 0 where there are fewer."""
    if rank > singular_values.shape[-1]:
        return np.zeros(singular_values.shape[:-1])
    return singular_values[..., rank - 1]


def squared_bures_distance(F: Array, G: Array) -> Array:
    """B²(F Fᵀ, G Gᵀ) = min_Q ‖F − G Q‖²_F over orthogonal Q, for factors (..., n, p) and (..., n, q).

    The minimiser is the polar factor of Gᵀ F, for q ≤ p with q orthonormal rows. As a sum of squares the result has
    relative accuracy near 0.
    """
    if F.shape[-1] < G.shape[-1]:
        F, G = G, F
    X = G.mT @ F
    inverse_root, well = well_conditioned_inverse_root(X @ X.mT)
    polar = inverse_root @ X
    if not well.all():
        U, _, Vh = np.linalg.svd(X[~well], full_matrices=False)
        polar[~well] = U @ Vh
    return np.sum((F - G @ polar) ** 2, axis=(-2, -1))


def covariance_distance(F: Array, covariance: Array) -> Array:
    """‖F Fᵀ − S*‖_F."""
    return np.linalg.norm(F @ F.mT - covariance, axis=(-2, -1))


def distance_to_diagonal(F: Array, spectrum: Array) -> Array:
    """‖F Fᵀ − diag(s)‖_F for F (..., n, k) and s (n,), in blocks where k ≪ n."""
    n, k = F.shape[-2:]
    if not is_thin(n, k):
        return covariance_distance(F, np.diag(spectrum))
    filled = int(np.max(np.flatnonzero(spectrum), initial=-1)) + 1
    return np.sqrt(squared_distance_to_diagonal(F[..., :filled, :], F[..., filled:, :], spectrum[:filled]))


def norm_over_layers(P: Array, s: Array, gradient: Array, depth: int) -> Array:
    """(Σ_j ‖∂L/∂W_j‖²)^{1/2} of the balanced network with end-to-end matrix P diag(s) Vᵀ, from ∇L V (..., n, k).

    With A = Pᵀ ∇L V, layer j has the gradient s^{(N−j)/N} A s^{(j−1)/N}, and the top layer also the part
    (I − P Pᵀ) ∇L V s^{(N−1)/N} that leaves the range of P. Its square is the rate at which the flow loses loss:
    dL/dt = −Σ_j ‖∂L/∂W_j‖².
    """
    root = s ** (2 / depth)
    inside = P.mT @ gradient
    squares = np.sum(inside**2 * pairwise_sums(root, depth), axis=(-2, -1))
    if P.shape[-1] < P.shape[-2]:
        leaving = gradient - P @ inside
        squares += np.sum(np.sum(leaving**2, axis=-2) * root ** (depth - 1), axis=-1)
    return np.sqrt(squares)


def alignment(F: Array, to_eigenbasis: Callable[[Array], Array]) -> Array:
    """|cos| between the eigenvectors of F Fᵀ (rows, largest first) and those of the target (columns): (..., k, n).

    `to_eigenbasis` is P ↦ Ωᵀ P, see `CovarianceLoss.to_eigenbasis`.
    """
    P, _, _ = np.linalg.svd(F, full_matrices=False)
    return np.abs(np.swapaxes(to_eigenbasis(P), -1, -2))
