"""The dense form of the Bures-Wasserstein loss with ε > 0."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..linalg.psd import Array
from ..linalg.root_path import RootPath
from .dense import Dense
from .form import Minimum

#: Below this μ_n/μ_1 the spectrum of M comes from singular values: eigh has an absolute error of eps·μ_1, but T needs
#: μ^{-1/2}.
_EIGH_CONDITION = 1e-6


class Smoothed(Dense):
    """ε > 0: the gradient is 2 (F − T F), from the eigendecomposition of M = R (F Fᵀ + εI) R."""

    def __init__(self, minimum: Minimum, columns: int, rank: int) -> None:
        super().__init__(minimum, columns, rank)
        self.epsilon: Array = np.asarray(minimum.epsilon, dtype=self.root.dtype)[..., None, None]

    @cached_property
    def shift(self) -> Array:
        """ε diag(λ) on the support."""
        root = self.root[..., : self.support, :]
        return np.eye(self.support, dtype=root.dtype) * (self.epsilon * root**2)

    @cached_property
    def optimal_map(self) -> Array:
        """t, the diagonal of T at the minimum: 1 where s*_j > 0, and √(λ_j/ε) elsewhere; (..., n)."""
        return np.where(self.minimum.spectrum > 0, 1.0, np.sqrt(self.minimum.eigenvalues / self.epsilon[..., 0]))

    def factor(self, F: Array) -> Array:
        """A = [F, √ε I]."""
        noise = np.sqrt(self.epsilon) * np.eye(self.dimension, dtype=F.dtype)
        return np.concatenate([F, np.broadcast_to(noise, (*F.shape[:-2], *noise.shape[-2:]))], axis=-1)

    def product(self, F: Array) -> Array:
        """M = R (F Fᵀ + εI) R on the support."""
        rows = F[..., : self.support, :]
        return self.root_outer * (rows @ rows.mT) + self.shift

    def value(self, F: Array) -> Array:
        """‖A − R Q‖²_F with the polar factor Q of R A."""
        A = self.factor(F)
        U, _, Vh = np.linalg.svd(self.root * A, full_matrices=False)
        return np.sum((A - self.root * (U @ Vh)) ** 2, axis=(-2, -1))

    def excess_by_svd(self, F: Array) -> Array:
        """‖T*^{1/2} A − T*^{-1/2} R Q‖² + Σ_j (1 − t_j) S_jj, T* = diag(t) (paper.md section 2)."""
        scale = np.sqrt(self.optimal_map)[..., :, None]
        scaled_root = np.divide(self.root, scale, out=np.zeros_like(self.root), where=scale > 0)
        A = self.factor(F)
        U, _, Vh = np.linalg.svd(self.root * A, full_matrices=False)
        distance = np.sum((scale * A - scaled_root * (U @ Vh)) ** 2, axis=(-2, -1))
        return distance + np.sum(np.sum(F**2, axis=-1) * (1 - self.optimal_map), axis=-1)

    def excess_by_map(self, F: Array, T: Array, gradient: Array) -> Array:
        """‖D F‖² + ε ‖D‖² + Σ_j (1 − t_j) S_jj, D = T*^{1/2} − T*^{-1/2} T: the excess above, as T R A = R Q.

        Where no direction is empty D = I − T, and the excess is ‖∇L‖²/4 + ε ‖I − T‖².
        """
        epsilon, identity = self.minimum.epsilon, np.eye(self.dimension)
        if (self.minimum.spectrum > 0).all():
            excess = np.sum(gradient**2, axis=(-2, -1)) / 4
            excess += epsilon * np.sum((identity - T) ** 2, axis=(-2, -1))
            return np.asarray(excess)
        root = np.sqrt(self.optimal_map)[..., :, None]
        excess = np.sum((root * F - (F - gradient / 2) / root) ** 2, axis=(-2, -1))
        excess += epsilon * np.sum((root * identity - T / root) ** 2, axis=(-2, -1))
        excess += np.sum(np.sum(F**2, axis=-1) * (1 - self.optimal_map), axis=-1)
        return np.asarray(excess)

    def gradient(self, F: Array) -> Array:
        """2 (F − T F)."""
        gradient = 2 * F
        gradient[..., : self.support, :] -= 2 * (self._map(*self._spectrum(F)) @ F[..., : self.support, :])
        return gradient

    def step(self, F: Array, roots: RootPath) -> tuple[Array, Array, Array]:
        """2 (F − T F), T, and μ_n/μ_1 of M."""

        def spectrum(members: NDArray[np.bool_]) -> tuple[Array, Array]:
            return self.of(members)._spectrum(F[members])

        inverse_root, condition = roots.inverse_root(self.product(F), spectrum)
        T = self.root_outer * inverse_root
        return 2 * (F - T @ F), T, condition

    def hessian_operator(self, F: Array) -> Callable[[Array], Array]:
        """V ↦ 2 (I − T) V − 2 R D R F, D = −Q [(Qᵀ E Q)_ij / (√μ_i √μ_j (√μ_i + √μ_j))] Qᵀ, E = R (V Fᵀ + F Vᵀ) R.

        D is the derivative of M^{-1/2} along V, M = Q diag(μ) Qᵀ (paper.md section 2).
        """
        F_ = F[..., : self.support, :]
        sigma, Q = self._spectrum(F)
        T = self._map(sigma, Q)
        rows, columns = sigma[..., :, None], sigma[..., None, :]

        def product(V: Array) -> Array:
            V_, result = V[..., : self.support, :], 2 * V
            E = self.root_outer * (V_ @ F_.mT + F_ @ V_.mT)
            inner = Q.mT @ E @ Q / (rows * columns * (rows + columns))
            result[..., : self.support, :] -= 2 * T @ V_
            result[..., : self.support, :] -= 2 * (self.root_outer * (-Q @ inner @ Q.mT)) @ F_
            return result

        return product

    def _spectrum(self, F: Array) -> tuple[Array, Array]:
        """√μ and Q of M = Q diag(μ) Qᵀ on the support."""
        mu, Q = np.linalg.eigh(self.product(F))
        poor = np.any(mu[..., :1] <= _EIGH_CONDITION * mu[..., -1:], axis=-1)  # a zero target has no μ
        if not poor.any():
            return np.sqrt(mu), Q
        half = (self.root * self.factor(F))[..., : self.support, :]  # M = half halfᵀ
        sigma = np.sqrt(np.maximum(mu, 0))
        U, singular, _ = np.linalg.svd(half[poor], full_matrices=False)
        sigma[poor], Q[poor] = singular, U
        return sigma, Q

    def _map(self, sigma: Array, Q: Array) -> Array:
        """T = R M^{-1/2} R on the support, for M = Q diag(σ²) Qᵀ."""
        return self.root_outer * ((Q / sigma[..., None, :]) @ Q.mT)
