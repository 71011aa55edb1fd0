"""The Bures-Wasserstein loss with ε = 0: polar factors of R F and their derivatives."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..linalg.psd import Array
from ..linalg.root_path import RootPath
from ..linalg.roots import rank_tolerance
from .dense import Dense, of_rank
from .form import Minimum

#: Gram matrices of a smaller reciprocal condition number give way to an SVD: for ε = 0 critical points must be resolved
#: to 1e-10.
GRAM_CONDITION = 1e-5
#: Singular values below this many rank tolerances count as rounding of a product of layers.
_PRODUCT_ROUNDING = 1e3
#: Floor relative to μ_1 that keeps discarded eigenvalues of a Gram matrix away from zero.
_LEAST = 1e-30


class Polar(Dense):
    """ε = 0: the gradient is 2 (F − R U Vᵀ), with the polar factor U Vᵀ of R F = U σ Vᵀ.

    Only for a square F of full rank M is regular and the map T known.
    """

    def __init__(self, minimum: Minimum, columns: int, rank: int) -> None:
        super().__init__(minimum, columns, rank)
        self.mapped = self.mapped and columns == rank == self.dimension

    def factor(self, F: Array) -> Array:
        """A = F."""
        return F

    def gradient(self, F: Array) -> Array:
        """2 (F − R U Vᵀ)."""
        return 2 * (F - self.root * polar_factor(self.root * F))

    def value_and_gradient(self, F: Array) -> tuple[Array, Array]:
        """‖∇L‖²/4 + tr R (I − Q Qᵀ) R and ∇L = 2 (F − R Q), from one polar factor Q of R F."""
        Q = polar_factor(self.root * F)
        gradient = 2 * (F - self.root * Q)
        squares = Q**2
        missing = self.dimension - np.rint(np.sum(squares, axis=(-2, -1)))  # rank of I − Q Qᵀ
        lost = np.sum(self.root[..., 0] ** 2 * (1 - np.sum(squares, axis=-1)), axis=-1)
        return np.sum(gradient**2, axis=(-2, -1)) / 4 + np.where(missing > 0, lost, 0.0), gradient

    def excess_by_svd(self, F: Array) -> Array:
        """‖F − R U Vᵀ‖² + Σ_{j≤k} (λ_j − λ_k) |Ω_jᵀU_⊥|² + Σ_{j>k} (λ_k − λ_j) |Ω_jᵀU|², U_⊥ the complement of U.

        A narrower F has λ_k in addition for each missing column (paper.md section 2).
        """
        F, k = of_rank(F, self.rank), self.rank
        width = F.shape[-1]
        U, _, Vh = np.linalg.svd(self.root * F, full_matrices=width < self.dimension)
        inside, complement = U[..., :width], U[..., width:]
        distance = np.sum((F - self.root * (inside @ Vh[..., :width, :])) ** 2, axis=(-2, -1))
        last = self.minimum.eigenvalues[..., k - 1 : k]
        gap = self.minimum.eigenvalues - last
        leaked = np.sum(np.sum(inside**2, axis=-1)[..., k:] * -gap[..., k:], axis=-1)
        lost = np.sum(np.sum(complement**2, axis=-1)[..., :k] * gap[..., :k], axis=-1)
        return distance + leaked + lost + (k - width) * last[..., 0]

    def step(self, F: Array, roots: RootPath) -> tuple[Array, Array, Array]:
        """2 (F − R Q), Q = X (Xᵀ X)^{-1/2} for X = R F or its transpose, and μ_n/μ_1 of Xᵀ X, 0 where an SVD gave Q."""
        X = self.root * F
        tall = X if X.shape[-2] >= X.shape[-1] else X.mT
        poor = np.zeros(len(X), dtype=bool)
        gram = tall.mT @ tall

        def spectrum(members: NDArray[np.bool_]) -> tuple[Array, Array]:
            mu, V = np.linalg.eigh(gram[members])
            poor[members] = mu[:, 0] <= GRAM_CONDITION * mu[:, -1]
            largest = mu[:, -1:]
            return np.sqrt(np.where(largest > 0, np.maximum(mu, _LEAST * largest), 1)), V

        inverse_root, condition = roots.inverse_root(gram, spectrum)
        Q = tall @ inverse_root
        if poor.any():
            Q[poor], condition[poor] = _polar_by_svd(tall[poor]), 0.0
        Q = Q if tall is X else Q.mT
        return 2 * (F - self.root * Q), Q, condition

    def hessian_operator(self, F: Array) -> Callable[[Array], Array]:
        """V ↦ 2 V − 2 R dQ, dQ the derivative of the polar factor of R F along R V, within the matrices of rank k."""
        support = self.support
        if support == 0:  # a zero target: L = ‖W‖²
            return lambda V: 2 * V
        root = self.root[..., :support, :]
        derivative = polar_derivative(root * F[..., :support, :], self.rank)

        def product(V: Array) -> Array:
            result = 2 * V
            result[..., :support, :] -= 2 * root * derivative(root * V[..., :support, :])
            return result

        return product


class ThinPolar(Polar):
    """ε = 0 and k ≪ n: the singular vectors of R F need no n × n array, and neither does the excess."""

    def excess(self, F: Array) -> Array:
        """L − L*, the excess over the minimum at the rank of F plus the difference of that minimum from L*."""
        F = of_rank(F, self.rank)
        return thin_excess(self.minimum.eigenvalues, F) + self.minimum.lack(F.shape[-1])


def thin_excess(eigenvalues: Array, F: Array) -> Array:
    """L_0(F) − L*, L* the minimum over rank ≤ k, for F (..., n, k) with k < n columns, as a sum of squares.

    With R F = U σ Vᵀ it is ‖F − R U Vᵀ‖² + Σ_{j≤k} (λ_j − λ_k) (I − U Uᵀ)_jj + Σ_{j>k} (λ_k − λ_j) (U Uᵀ)_jj. The
    diagonal of I − U Uᵀ needs no complement of U: with the first k rows U_1 = A cos θ Bᵀ, and the other rows U_2, the
    columns of U_2 B are orthogonal and of length sin θ, so that I − U_1 U_1ᵀ = A sin²θ Aᵀ = (U_2 B Aᵀ)ᵀ (U_2 B Aᵀ).
    """
    k = F.shape[-1]
    root = np.sqrt(eigenvalues)[..., :, None]
    U, _, Vt = np.linalg.svd(root * F, full_matrices=False)
    distance = np.sum((F - root * (U @ Vt)) ** 2, axis=(-2, -1))
    gap = eigenvalues - eigenvalues[..., k - 1 : k]
    A, _, Bt = np.linalg.svd(U[..., :k, :])
    others = U[..., k:, :]
    lost = np.sum((others @ (A @ Bt).mT) ** 2, axis=-2)
    leaked = np.sum(others**2, axis=-1)
    return distance + np.sum(lost * gap[..., :k], axis=-1) - np.sum(leaked * gap[..., k:], axis=-1)


def polar_factor(X: Array) -> Array:
    """U Vᵀ of X = U σ Vᵀ (..., n, d), without the directions in which σ vanishes to rounding.

    It comes from the Gram matrix where that is well conditioned, and else from the SVD of X, which keeps the digits
    that the Gram matrix of a nearly singular X loses. Singular values below max(n, d) · eps · σ_1 count as zero.
    """
    tall = X if X.shape[-2] >= X.shape[-1] else X.mT
    mu, V = np.linalg.eigh(tall.mT @ tall)
    poor = mu[..., 0] <= GRAM_CONDITION * mu[..., -1]
    sigma = np.sqrt(np.where(poor[..., None], 1, mu))
    polar = tall @ ((V / sigma[..., None, :]) @ V.mT)
    if poor.any():
        polar[poor] = _polar_by_svd(tall[poor])
    return polar if tall is X else polar.mT


def _polar_by_svd(X: Array) -> Array:
    """U Vᵀ from the SVD of X (..., n, d), n ≥ d."""
    U, sigma, Vh = np.linalg.svd(X, full_matrices=False)
    retained = sigma > rank_tolerance(X) * sigma[..., :1]
    return (U * retained[..., None, :]) @ Vh


def polar_derivative(X: Array, rank: int) -> Callable[[Array], Array]:
    """Derivative of the polar factor U Vᵀ of X = U σ Vᵀ, within the matrices of the rank of X, as a function of dX.

    With thin U, V of min(`rank`, n, d) columns: U [(C − Cᵀ)_{ij} / (σ_i + σ_j)] Vᵀ + (I − U Uᵀ) dX V σ^{-1} Vᵀ
    + U σ^{-1} Uᵀ dX (I − V Vᵀ), C = Uᵀ dX V.

    Raises
    ------
    ValueError
        If X has another numerical rank: where a singular value vanishes the polar factor is not differentiable.
    """
    full = min(X.shape[-2:])
    rank = min(rank, full)
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
