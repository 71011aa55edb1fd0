"""The square loss, for comparison."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..linalg.psd import Array
from ..linalg.roots import pseudo_inverse
from ..linalg.thin import is_thin, squared_distance_to_diagonal
from . import closed_form_rates
from .base import CovarianceLoss, pairs
from .form import Form


class Frobenius(CovarianceLoss):
    """Square loss L_F(W) = ‖W Wᵀ − Σ0‖²_F (paper.md section 2, the comparison).

    Parameters
    ----------
    covariance : (..., n, n) or Target
        Target Σ0, symmetric positive semidefinite; or a stack of targets.
    """

    name = "frobenius"
    degree = 4
    label = "Frobenius"
    has_linear_part = True

    def make_form(self, columns: int, rank: int) -> Form:
        """Dense, or without n × n arrays for d ≪ n."""
        kind = _Thin if is_thin(self.dimension, columns) else _Dense
        return kind(self.minimum_over(rank), columns, rank)

    def minimum_spectrum(self, rank: int) -> Array:
        """s*_j = λ_j for j ≤ rank, 0 beyond (Eckart-Young)."""
        return np.where(np.arange(self.dimension) < rank, self.eigenvalues, 0)

    def empty_costs(self) -> Array:
        """λ_j²."""
        return self.eigenvalues**2

    def local_rates(self, depth: int, kept: ArrayLike) -> tuple[Array, Array]:
        """4 (λ_a + λ_b) (λ_a − λ_b)/(λ_a^{1/N} − λ_b^{1/N}) in the block and 4 λ_a^{1−1/N} (λ_a − λ_b) off it."""
        return closed_form_rates.frobenius(self.eigenvalues, depth, kept)

    def filling_rates(self, depth: int, kept: ArrayLike) -> Array:
        """−4 λ_b at N = 1, 0 at N ≥ 2; b not in J."""
        return closed_form_rates.frobenius_filling(self.eigenvalues, depth, kept)

    def global_rate(self, depth: int, least_singular_value: float) -> float:
        """16 N m^{2−1/N}, m = min(σ_n(W(0))², λ_n)."""
        return closed_form_rates.frobenius_global(self.eigenvalues, depth, least_singular_value)

    def batch_bias(self, fluctuation: Array) -> Array:
        """0: the gradient is linear in the target."""
        return np.zeros_like(self.eigenvalues)

    def multiplier(self, spectrum: Array) -> Array:
        """4 (s − λ)."""
        return 4 * (spectrum - self.eigenvalues)

    def curvature(self, spectrum: Array, columns: NDArray[np.intp] | None = None) -> Array:
        """Q_ab = 8 (s_a + s_b) − 4 (λ_a + λ_b)."""
        term_a, term_b = pairs(8 * spectrum - 4 * self.eigenvalues, columns)
        return term_a + term_b

    def scaled_gradients(self, F: Array, gradient: Array) -> list[Array]:
        """∇L (Fᵀ F)⁺ = 4 (F − Λ (F⁺)ᵀ), ScaledGD (Tong, Ma and Chi 2021).

        All rates at the minimum within its range are then 8. The form on the right squares no condition number. The
        product itself has an error of eps (λ_1/σ_min)², and need not be a descent direction at all.
        """
        return [4 * (F - self.eigenvalues[:, None] * pseudo_inverse(F).T)]


class _Dense(Form):
    """The square loss on n × n arrays."""

    def value(self, F: Array) -> Array:
        """‖F Fᵀ − Λ‖²."""
        return np.sum(self._residual(F) ** 2, axis=(-2, -1))

    def excess(self, F: Array) -> Array:
        """‖S − S*‖² − 2 Σ_{j>k} λ_j S_jj: the cross term of ‖(S − S*) + (S* − Σ0)‖²."""
        spectrum, k = self.minimum.spectrum, self.rank
        difference = F @ F.mT - np.eye(spectrum.shape[-1]) * spectrum[..., None]
        cross = np.sum(np.sum(F**2, axis=-1)[..., k:] * self.minimum.eigenvalues[..., k:], axis=-1)
        return np.sum(difference**2, axis=(-2, -1)) - 2 * cross

    def gradient(self, F: Array) -> Array:
        """4 (F Fᵀ − Λ) F."""
        return 4 * self._residual(F) @ F

    def hessian_operator(self, F: Array) -> Callable[[Array], Array]:
        """V ↦ 4 (F Fᵀ − Λ) V + 4 (V Fᵀ + F Vᵀ) F."""
        return lambda V: 4 * (self._residual(F) @ V + (V @ F.mT + F @ V.mT) @ F)

    def _residual(self, F: Array) -> Array:
        eigenvalues = self.minimum.eigenvalues
        return F @ F.mT - (np.eye(F.shape[-2]) * eigenvalues[..., None]).astype(F.dtype, copy=False)


class _Thin(_Dense):
    """The square loss for d ≪ n, by d × d products."""

    def value(self, F: Array) -> Array:
        """L* + (L − L*)."""
        return self.minimum.value + self.excess(F)

    def excess(self, F: Array) -> Array:
        """‖S − S*‖² − 2 Σ_{j>k} λ_j S_jj by blocks: the first k rows and columns, and the others."""
        k, eigenvalues = min(self.rank, self.columns), self.minimum.eigenvalues
        others = F[..., k:, :]
        cross = np.sum(np.sum(others**2, axis=-1) * eigenvalues[..., k:], axis=-1)
        squares = squared_distance_to_diagonal(F[..., :k, :], others, eigenvalues[..., :k])
        return squares - 2 * cross + self.minimum.lack(k)

    def gradient(self, F: Array) -> Array:
        """4 (F (Fᵀ F) − Λ F)."""
        return 4 * (F @ (F.mT @ F) - self.minimum.eigenvalues[..., :, None] * F)

    def hessian_operator(self, F: Array) -> Callable[[Array], Array]:
        """V ↦ 4 (S − Λ) V + 4 (V Fᵀ + F Vᵀ) F."""
        Ft, eigenvalues = F.mT, self.minimum.eigenvalues

        def product(V: Array) -> Array:
            return 4 * (F @ (Ft @ V + V.mT @ F) + V @ (Ft @ F) - eigenvalues[..., :, None] * V)

        return product
