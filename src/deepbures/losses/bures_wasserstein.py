"""The Bures-Wasserstein loss: value, derivatives, minimum, and closed forms (paper.md sections 2 to 4)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..linalg.psd import Array, check_square_fits, soft_threshold
from ..linalg.roots import gram_pseudo_inverse
from ..linalg.thin import is_thin
from . import closed_form_rates
from .base import CovarianceLoss, pairs
from .dense import Dense
from .linear_forms import ThinSmoothed
from .polar import Polar, ThinPolar
from .target import Target

#: The forms for ε > 0 and ε = 0.
_DENSE: tuple[type[Dense], type[Dense]] = Dense, Polar
_THIN: tuple[type[ThinSmoothed], type[Dense]] = ThinSmoothed, ThinPolar


class BuresWasserstein(CovarianceLoss):
    """Squared Bures-Wasserstein distance between N(0, W Wᵀ + εI) and N(0, Σ0).

    L_ε(W) = tr(S + εI) + tr Σ0 − 2 tr (R (S + εI) R)^{1/2}, with S = W Wᵀ and R = Σ0^{1/2}
    (paper.md section 2; Bréchet et al. 2023, where ε is written τ).

    Parameters
    ----------
    covariance : (..., n, n) or Target
        Target Σ0, symmetric positive semidefinite; it may be singular. Or a stack of targets, of one rank.
    epsilon : (...)
        ε ≥ 0, one number or one for each target; ε = 0 is the distance itself.

    Raises
    ------
    ValueError
        On a covariance that is not symmetric positive semidefinite and finite, on ε < 0, or on a stack
        that mixes ranks, or ε = 0 with ε > 0.

    Notes
    -----
    Value: L_ε(W) = ‖A − R Q‖²_F with A Aᵀ = S + εI and Q the polar factor of R A.

    Gradient: ∇L_ε(W) = 2 (I − T) W, where T = R M^{-1/2} R with M = R (S + εI) R is the optimal transport map from
    N(0, S + εI) to N(0, Σ0). For ε = 0, ∇L_0(W) = 2 (W − R U Vᵀ) with the polar factor U Vᵀ of R W = U σ Vᵀ.

    Hessian product: ∇²L_ε(W)[V] = 2 (I − T) V − 2 R D R W, where D is the derivative of M^{-1/2} along
    E = R (V Wᵀ + W Vᵀ) R, D = −Q [(Qᵀ E Q)_ij / (√μ_i √μ_j (√μ_i + √μ_j))] Qᵀ for M = Q diag(μ) Qᵀ.

    Minimum over rank ≤ k: eigenvalues s*_j = (λ_j − ε)_+ for j ≤ k, and L* = Σ (√λ_j − √ε)² over the directions with
    s*_j = 0.

    How these are computed depends on ε and on the shape of W, see `make_form`.
    """

    name = "bures-wasserstein"
    degree = 2
    label = "Bures-Wasserstein"
    has_epsilon = True
    has_linear_part = True
    is_bures_distance = True

    def __init__(self, covariance: ArrayLike | Target, epsilon: ArrayLike = 0.0) -> None:
        super().__init__(covariance)
        numbers = np.asarray(epsilon, dtype=float)
        least, largest = numbers.min(initial=np.inf), numbers.max(initial=0.0)
        if not (least >= 0 and largest < np.inf):
            raise ValueError(f"epsilon must be a finite number ≥ 0, not {epsilon!r}")
        if numbers.shape not in ((), self.shape):
            raise ValueError(
                f"epsilon must be one number or have the shape of the stack, {self.shape}, not {numbers.shape}"
            )
        self.has_kink = bool(largest == 0)
        if least == 0 < largest:
            raise ValueError(f"epsilon must be 0 for all targets of a stack or positive for all, not {epsilon!r}")
        self.epsilon = np.full(self.shape, numbers)[()]
        ranks = np.sum(self.eigenvalues > 0, axis=-1)
        if ranks.size and ranks.min() != ranks.max():
            raise ValueError(f"the covariances of a stack must have one rank, not {ranks.min()} to {ranks.max()}")

    def on(self, target: Target, epsilon: ArrayLike) -> BuresWasserstein:
        """The loss on another target and ε."""
        return type(self)(target, epsilon)

    def make_form(self, columns: int, rank: int) -> Dense | ThinSmoothed:
        """From M^{-1/2} for ε > 0, from polar factors for ε = 0; on n × n arrays, or linear in n for d ≪ n."""
        kind = (_THIN if is_thin(self.dimension, columns) else _DENSE)[self.has_kink]
        return kind(self.minimum_over(rank), columns, rank)

    # --- The transport map ------------------------------------------------------------------------------------------

    def transport_map(self, W: ArrayLike) -> Array:
        """T = R (R (W Wᵀ + εI) R)^{-1/2} R, (..., n, n): optimal transport map from N(0, S + εI) to N(0, Σ0).

        Raises
        ------
        ValueError
            For ε = 0, where W Wᵀ is singular on the range of the target: N(0, S) then has no map to N(0, Σ0).
        """
        check_square_fits("the transport map", self.dimension)
        F = self.to_eigenbasis(W)
        dense = _DENSE[self.has_kink](self.minimum_over(self.dimension), F.shape[-1], self.dimension)
        U, sigma = dense.whitened(F)
        Omega = self.eigenvectors[..., : dense.support] * dense.root[..., : dense.support, :].mT
        half = (Omega @ U) / np.sqrt(sigma)[..., None, :]
        return half @ half.mT

    def transport(self, W: ArrayLike, V: ArrayLike) -> Array:
        """T V, the transport map at W (..., n, d) applied to a block V (..., n, p); linear in n for ε > 0 and d ≪ n."""
        F, E = self.to_eigenbasis(W), self.to_eigenbasis(V, "V")
        return self.from_eigenbasis(self.make_form(F.shape[-1], F.shape[-1]).transport(F, E))

    def level_of_empty_columns(self, W: ArrayLike) -> float | None:
        """2 (1 − λ_max(T)) for ε > 0: an empty column changes S to second order only, so its Hessian is 2 (I − T)."""
        if self.has_kink:
            return None
        return float(2 * (1 - np.linalg.eigvalsh(self.transport_map(W))[-1]))

    # --- The minimum ------------------------------------------------------------------------------------------------

    def minimum_spectrum(self, rank: int) -> Array:
        """s*_j = (λ_j − ε)_+ for j ≤ rank, 0 beyond and where λ_j and ε agree to rounding (paper.md section 3)."""
        leading = np.arange(self.dimension) < rank
        return np.where(leading, soft_threshold(self.eigenvalues, self._epsilon_row), 0)

    def empty_costs(self) -> Array:
        """(√λ_j − √ε)²; λ_j for ε = 0."""
        return (np.sqrt(self.eigenvalues) - np.sqrt(self._epsilon_row)) ** 2

    @property
    def _epsilon_row(self) -> Array:
        """ε with one more axis, against eigenvalues, in their precision."""
        return np.asarray(self.epsilon, dtype=self.eigenvalues.dtype)[..., None]

    # --- Closed forms -----------------------------------------------------------------------------------------------

    def local_rates(self, depth: int, kept: ArrayLike) -> tuple[Array, Array]:
        """With s = λ − ε, 2 (s_a + s_b)/(λ_a + λ_b) · (s_a − s_b)/(s_a^{1/N} − s_b^{1/N}) in the block, and off it
        2 s_a^{1−1/N} (λ_a − λ_b)/(λ_a + √(ε λ_b)).

        Raises
        ------
        ValueError
            If ε exceeds some λ_a with a in J.
        """
        return closed_form_rates.bures_wasserstein(self.eigenvalues, float(self.epsilon), depth, kept)

    def filling_rates(self, depth: int, kept: ArrayLike) -> Array:
        """N = 1: 2 (1 − √(λ_b/ε)), for ε = 0 −∞ (2 where λ_b = 0); N = 2, ε = 0: −2 √λ_b; else 0; b not in J."""
        return closed_form_rates.bures_wasserstein_filling(self.eigenvalues, float(self.epsilon), depth, kept)

    def global_rate(self, depth: int, least_singular_value: float) -> float:
        """4 N m^{2−1/N}/(m + ε), m = min(σ_n(W(0))², λ_n − ε)."""
        epsilon = float(self.epsilon)
        return closed_form_rates.bures_wasserstein_global(self.eigenvalues, epsilon, depth, least_singular_value)

    def excess_by_direction(self, W: ArrayLike, rank: int) -> tuple[Array, Array] | None:
        """To second order in S − S*, (S − S*)_ab²/(λ_a + λ_b) in the block, half of that for a = b, and off it
        (λ_a − λ_b)/(λ_a + √(ε λ_b)) · S_ab²/(λ_a − ε); None for ε ≥ λ_k.
        """
        epsilon = float(self.epsilon)
        if not epsilon < self.eigenvalues[rank - 1]:
            return None
        F = self.to_eigenbasis(W)
        return closed_form_rates.bures_wasserstein_excess(self.eigenvalues, epsilon, F[:rank] @ F.T)

    def multiplier(self, spectrum: Array) -> Array:
        """2 (1 − √(λ/(s + ε)))."""
        width = spectrum + np.asarray(self.epsilon)[..., None]
        ratio = np.divide(self.eigenvalues, width, out=np.zeros_like(width), where=width > 0)
        return 2 * (1 - np.sqrt(ratio))

    def curvature(self, spectrum: Array, columns: NDArray[np.intp] | None = None) -> Array:
        """Q_ab = 4 − 2 (λ_a + λ_b)/(m_a + m_b) − 4 ε λ_a λ_b/(m_a m_b (m_a + m_b)), m = √(λ (s + ε)).

        The formula of paper.md section 4, with λs = m² − ελ put in: finite wherever one of the two m is positive. Where
        λ_a = λ_b = 0 there is no transport and Q = 4.
        """
        epsilon = np.asarray(self.epsilon)[..., None]
        lam_a, lam_b = pairs(self.eigenvalues, columns)
        root_a, root_b = pairs(np.sqrt(self.eigenvalues), columns)
        width_a, width_b = pairs(np.sqrt(spectrum + epsilon), columns)
        m_sum = root_a * width_a + root_b * width_b
        transported = np.divide(lam_a + lam_b, m_sum, out=np.zeros_like(m_sum), where=m_sum > 0)
        Q = 4 - 2 * transported
        if not self.has_kink:
            blur = root_a * root_b / (width_a * width_b)
            Q -= 4 * epsilon[..., None] * np.divide(blur, m_sum, out=np.zeros_like(m_sum), where=m_sum > 0)
        return Q

    def hessian_bounds(self) -> tuple[float, float]:
        """2 (1 − √(λ_1/ε)) and 2 (paper.md section 2)."""
        return closed_form_rates.bures_wasserstein_hessian_bounds(self.eigenvalues, float(self.epsilon))

    def batch_bias(self, fluctuation: Array) -> Array:
        """−Σ_j λ_j Var Σ̂_ij/(λ_i + λ_j)², from T (S + εI) T = Σ̂ to second order."""
        lam = self.eigenvalues
        return np.asarray(-np.sum(lam * fluctuation / (lam[:, None] + lam) ** 2, axis=-1))

    def least_excess(self, squared_gradient: float) -> float:
        """‖∇L‖²/4: a step of ½ down the gradient loses at least that (paper.md section 8)."""
        return squared_gradient / 4

    def scaled_gradients(self, F: Array, gradient: Array) -> list[Array]:
        """∇L C, C = I + ε (Wᵀ W)⁺, and ∇L itself, because C is ill conditioned where a singular value of W is small.

        At the minimum the rates r_ab = 2 (s_a + s_b)/(λ_a + λ_b) within its range (paper.md section 4, N = 1,
        s = λ − ε) become 2 under C, whatever ε < λ. For ε = 0 they are 2 already and C = I; ScaledGD's
        (Wᵀ W)^{-1} would spread them over the condition number.
        """
        if self.has_kink:
            return [gradient]
        scaling = np.eye(F.shape[-1]) + float(self.epsilon) * gram_pseudo_inverse(F)
        return [gradient @ scaling, gradient]
