"""The square loss, for comparison."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..linalg.psd import Array
from ..linalg.roots import gram_pseudo_inverse, pseudo_inverse
from ..linalg.thin import is_thin
from . import closed_form_rates, linear_forms
from .base import CovarianceLoss, pairs


class Frobenius(CovarianceLoss):
    """Square loss L_F(W) = ‖W Wᵀ − Σ0‖²_F (paper.md section 2, the comparison).

    Parameters
    ----------
    covariance : (..., n, n)
        Target Σ0, symmetric positive semidefinite; or a stack of targets.
    """

    name = "frobenius"
    degree = 4
    label = "Frobenius"
    has_linear_part = True

    def local_rates(self, depth: int, kept: ArrayLike) -> tuple[Array, Array]:
        """See `closed_form_rates.frobenius`."""
        return closed_form_rates.frobenius(self.eigenvalues, depth, kept)

    def filling_rates(self, depth: int, kept: ArrayLike) -> Array:
        """−4 λ_b at N = 1, 0 at N ≥ 2; b not in J."""
        return closed_form_rates.frobenius_filling(self.eigenvalues, depth, kept)

    def global_rate(self, depth: int, least_singular_value: float) -> float:
        """16 N m^{2−1/N}, m = min(σ_n(W(0))², λ_n)."""
        return closed_form_rates.frobenius_global(self.eigenvalues, depth, least_singular_value)

    def minimum_spectrum(self, rank: int) -> Array:
        """λ_j for j ≤ rank, 0 beyond (Eckart-Young)."""
        return np.where(np.arange(self.dimension) < rank, self.eigenvalues, 0)

    def empty_costs(self) -> Array:
        """λ_j²."""
        return self.eigenvalues**2

    def multiplier(self, spectrum: Array) -> Array:
        """4 (s − λ)."""
        return 4 * (spectrum - self.eigenvalues)

    def curvature(self, spectrum: Array, columns: NDArray[np.intp] | None = None) -> Array:
        """Q_ab = 8 (s_a + s_b) − 4 (λ_a + λ_b)."""
        term_a, term_b = pairs(8 * spectrum - 4 * self.eigenvalues, columns)
        return term_a + term_b

    def right_scaling(self, W: Array) -> Array:
        """(Wᵀ W)⁺, ScaledGD (Tong, Ma and Chi 2021): all rates within the range of the minimum become 8."""
        return gram_pseudo_inverse(W)

    def right_scaled_gradient(self, F: Array, gradient: Array) -> Array:
        """4 (F Fᵀ − Λ) F (Fᵀ F)⁺ = 4 (F − Λ (F⁺)ᵀ): no condition number is squared.

        The product itself has an error of eps (λ_1/σ_min)² and need not be a descent direction at all.
        """
        return 4 * (F - self.eigenvalues[:, None] * pseudo_inverse(F).T)

    def _residual(self, F: Array) -> Array:
        return F @ F.mT - (np.eye(self.dimension) * self.eigenvalues[..., None]).astype(F.dtype, copy=False)

    def value_in_eigenbasis(self, F: Array) -> Array:
        """‖F Fᵀ − Λ‖²; in the form linear in n what the empty directions add, and the excess."""
        columns = F.shape[-1]
        if is_thin(self.dimension, columns):
            return self.minimum_value(columns) + self.excess_in_eigenbasis(F, columns)
        return np.sum(self._residual(F) ** 2, axis=(-2, -1))

    def excess_in_eigenbasis(self, F: Array, rank: int) -> Array:
        """‖S − S*‖² − 2 Σ_{j>k} λ_j S_jj: the cross term of ‖(S − S*) + (S* − Σ0)‖²."""
        if is_thin(self.dimension, F.shape[-1]):
            kept = min(rank, F.shape[-1])
            return linear_forms.frobenius_excess(self.eigenvalues, F, kept) + self._lack(kept, rank)
        difference = F @ F.mT - np.eye(self.dimension) * self.minimum_spectrum(rank)[..., None]
        cross = np.sum(np.sum(F**2, axis=-1)[..., rank:] * self.eigenvalues[..., rank:], axis=-1)
        return np.sum(difference**2, axis=(-2, -1)) - 2 * cross

    def gradient_in_eigenbasis(self, F: Array) -> Array:
        """4 (F Fᵀ − Λ) F."""
        if is_thin(self.dimension, F.shape[-1]):
            return linear_forms.frobenius_gradient(self.eigenvalues, F)
        return 4 * self._residual(F) @ F

    def hessian_product_in_eigenbasis(self, F: Array, V: Array, rank: int | None = None) -> Array:
        """4 (S − Σ0) V + 4 (V Wᵀ + W Vᵀ) W."""
        if is_thin(self.dimension, F.shape[-1]):
            return linear_forms.frobenius_hessian_product(self.eigenvalues, F, V)
        return 4 * (self._residual(F) @ V + (V @ F.mT + F @ V.mT) @ F)
