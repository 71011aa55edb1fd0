"""The Bures-Wasserstein loss with ε = 0: polar factors of R F and their derivatives."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..linalg.psd import Array
from ..linalg.root_path import RootPath
from ..linalg.roots import rank_tolerance
from .dense import Dense, of_rank
from .form import Minimum

#: Gram matrices of a smaller reciprocal condition number give the polar factor to less than 1e-11: critical points with
#: ε = 0 must be resolved to 1e-10.
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

    def value(self, F: Array) -> Array:
        """‖F − R Q‖² + tr R (I − Q Qᵀ) R with an isometry Q = U Vᵀ; Q Qᵀ = I for n or more columns of F."""
        return self.value_and_gradient(F)[0]

    def gradient(self, F: Array) -> Array:
        """2 (F − R U Vᵀ)."""
        return 2 * (F - self.root * polar_factor(self.root * F))

    def value_and_gradient(self, F: Array) -> tuple[Array, Array]:
        """`value` and `gradient`, which differ in Q where R F is singular.

        Each Q is corrected: the value has an error of first order in Qᵀ Q − I.
        """
        Q, isometry = polar_factors(self.root * F, condition=1.0)
        gradient = self.root * Q
        np.subtract(F, gradient, out=gradient)
        residual = gradient if isometry is Q else F - self.root * isometry
        value = np.vecdot(residual, residual).sum(axis=-1)
        gradient *= 2
        if F.shape[-1] < self.dimension:
            value += np.sum(self.root[..., 0] ** 2 * (1 - np.sum(isometry**2, axis=-1)), axis=-1)
        return value, gradient

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
        poor, exact = np.zeros(len(X), dtype=bool), np.empty_like(tall)
        gram = tall.mT @ tall

        def spectrum(members: NDArray[np.bool_]) -> tuple[Array, Array]:
            mu, V = np.linalg.eigh(gram[members])
            ill = mu[:, 0] <= GRAM_CONDITION * mu[:, -1]
            poor[members] = ill
            if ill.any():
                exact[poor & members] = _polar_from(tall[poor & members], mu[ill], V[ill], 1.0)[0]
            largest = mu[:, -1:]
            return np.sqrt(np.where(largest > 0, np.maximum(mu, _LEAST * largest), 1)), V

        inverse_root, condition = roots.inverse_root(gram, spectrum)
        Q = tall @ inverse_root
        if poor.any():
            Q[poor], condition[poor] = exact[poor], 0.0
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
    """U Vᵀ of X = U σ Vᵀ (..., n, d), without the directions in which σ vanishes to rounding."""
    return polar_factors(X, GRAM_CONDITION)[0]


def polar_factors(X: Array, condition: float) -> tuple[Array, Array]:
    """U Vᵀ of X = U σ Vᵀ (..., n, d), without the directions in which σ vanishes to rounding, and with all min(n, d).

    Singular values below max(n, d) · eps · σ_1 count as zero. Gram matrices of a reciprocal condition number up to
    `condition` give way to a correction.
    """
    tall = X if X.shape[-2] >= X.shape[-1] else X.mT
    polar, complete = _polar_from(tall, *np.linalg.eigh(tall.mT @ tall), condition)
    return (polar, complete) if tall is X else (polar.mT, complete.mT)


def _polar_from(X: Array, mu: Array, V: Array, condition: float) -> tuple[Array, Array]:
    """`polar_factors` of X (..., n, d), n ≥ d, from its Gram matrix V diag(μ) Vᵀ, or where that is poor from an SVD."""
    P, singular = _orthonormal_columns(X, mu, V, condition)
    polar = complete = P @ V.mT
    if singular.any():
        U, sigma, Vh = np.linalg.svd(X[singular], full_matrices=False)
        retained = sigma > rank_tolerance(X) * sigma[..., :1]
        complete = polar.copy()
        polar[singular], complete[singular] = (U * retained[..., None, :]) @ Vh, U @ Vh
    return polar, complete


def _orthonormal_columns(X: Array, mu: Array, V: Array, condition: float) -> tuple[Array, NDArray[np.bool_]]:
    """P = U Vᵀ V for X = U σ Vᵀ (..., n, d), n ≥ d, from its Gram matrix V diag(μ) Vᵀ; a mask where it is not accurate.

    It is X V diag(μ)^{-1/2}, with columns that are orthonormal up to eps times the condition of the Gram matrix. Where
    that exceeds 1/`condition`, a step of Newton's method follows, with Δ = Pᵀ P − I,

        P ← P (I − [Δ_ij √μ_i/(√μ_i + √μ_j)]),

    which leaves an error of ‖Δ‖² and rounding errors as those of an SVD of X, at a fifth of its cost (ours). It is
    accurate where ‖Δ‖_F ≤ √eps, up to a condition of about 1e7.
    """
    eps = float(np.finfo(X.dtype).eps)
    poor, singular = (np.asarray(mu[..., 0] <= least * mu[..., -1]) for least in (condition, eps))
    sigma = np.sqrt(np.where(singular[..., None], 1, mu))
    P = X @ V
    P /= sigma[..., None, :]
    if poor.any():
        members = ... if poor.all() else poor  # no copies
        part, sigma = P[members], sigma[members]
        delta = part.mT @ part
        delta -= np.eye(V.shape[-1], dtype=X.dtype)
        singular[members] |= ~(np.einsum("...ij,...ij->...", delta, delta) <= eps)
        divisor = sigma[..., None, :] / sigma[..., :, None]
        divisor += 1
        delta /= divisor
        part -= part @ delta
        P[members] = part
    return P, singular


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
