"""The Bures-Wasserstein loss, with and without smoothing.

It has two forms: dense kernels on n × n arrays, and those of `linear_forms` for matrices of k ≪ n columns. `is_thin`
there chooses.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..linalg.psd import Array, check_square_fits, soft_threshold
from ..linalg.root_path import RootPath
from ..linalg.roots import WELL_CONDITIONED, near_diagonal_inverse_root, rank_tolerance, well_conditioned_inverse_root
from ..linalg.sample_covariance import sample_spectrum
from ..linalg.thin import is_thin
from . import closed_form_rates, linear_forms, small_smoothing
from .base import CovarianceLoss, pairs
from .polar import _GRAM_CONDITION, _polar_by_svd, _polar_derivative, _polar_factor, _thin_factor

#: Below this μ_n/μ_1 the spectrum of M is taken from singular values instead: eigh gives it to an
#: absolute eps·μ_1, and the transport map needs μ^{-1/2}.
_EIGH_CONDITION = 1e-6
#: Below so many rows the SVD that gives the excess takes less than the calls that save it.
_FEWEST_ROWS_BY_MAPS = 12
#: Above this λ_{k+1}/ε the excess is taken from `small_smoothing`: the form with T* loses a factor √(λ_{k+1}/ε).
_BARELY_SMOOTHED = 1e4
#: A share of μ_1 below all that counts: so that no root of a μ, which is not used, is 0.
_LEAST = 1e-30


class BuresWasserstein(CovarianceLoss):
    """Squared Bures-Wasserstein distance between N(0, W Wᵀ + εI) and N(0, Σ0).

    L_ε(W) = tr(S + εI) + tr Σ0 − 2 tr (R (S + εI) R)^{1/2}, with S = W Wᵀ and R = Σ0^{1/2}
    (paper.md section 2; Bréchet et al. 2023, where ε is written τ).

    Parameters
    ----------
    covariance : (..., n, n)
        Target Σ0, symmetric positive semidefinite; it may be singular. Or a stack of targets, of one rank.
    epsilon : (...)
        Smoothing ε ≥ 0, one number or one for each target; ε = 0 is the distance itself.

    Raises
    ------
    ValueError
        On a covariance that is not symmetric positive semidefinite and finite, on ε < 0, or on a stack
        that mixes ranks, or ε = 0 with ε > 0.

    Notes
    -----
    The gradient is 2 (I − T) W with T = R M^{-1/2} R the optimal transport map from N(0, S + εI)
    to N(0, Σ0) and M = R (S + εI) R. For ε = 0 it is 2 (W − R U Vᵀ) with the polar factor U Vᵀ of
    R W = U σ Vᵀ, which costs O(n² d): from the Gram matrix where that is well conditioned, and else from
    the thin SVD, which keeps the digits that a Gram matrix loses on a singular S. There singular values
    below max(n, d) · eps · σ_1 count as zero (pseudo-inverse of M).
    """

    name = "bures-wasserstein"
    degree = 2
    label = "Bures-Wasserstein"
    takes_smoothing = True
    has_linear_part = True
    _stacked = (*CovarianceLoss._stacked, "epsilon", "_root")
    _derived = (*CovarianceLoss._derived, "_root_outer", "_smoothing_diagonal")

    def __init__(self, covariance: ArrayLike, epsilon: ArrayLike = 0.0) -> None:
        super().__init__(covariance)
        self._set_smoothing(epsilon)

    @classmethod
    def from_spectrum(
        cls, eigenvalues: ArrayLike, eigenvectors: ArrayLike | None = None, epsilon: ArrayLike = 0.0
    ) -> Self:
        """As `CovarianceLoss.from_spectrum`, with the smoothing ε."""
        loss = super().from_spectrum(eigenvalues, eigenvectors)
        loss._set_smoothing(epsilon)
        return loss

    @classmethod
    def from_samples(cls, X: ArrayLike, epsilon: ArrayLike = 0.0) -> Self:
        """As `CovarianceLoss.from_samples`, with the smoothing ε."""
        return cls.from_spectrum(*sample_spectrum(X), epsilon)

    def _set_smoothing(self, epsilon: ArrayLike) -> None:
        smoothing = np.asarray(epsilon, dtype=float)
        if not (np.isfinite(smoothing) & (smoothing >= 0)).all():
            raise ValueError(f"epsilon must be a finite number ≥ 0, not {epsilon!r}")
        if smoothing.shape not in ((), self.shape):
            raise ValueError(
                f"epsilon must be one number or have the shape of the stack, {self.shape}, not {smoothing.shape}"
            )
        self.smoothed = bool((smoothing > 0).any())
        if self.smoothed and not (smoothing > 0).all():
            raise ValueError(f"epsilon must be 0 for all targets of a stack or positive for all, not {epsilon!r}")
        self.epsilon = np.broadcast_to(smoothing, self.shape)[()]
        self._root = np.sqrt(self.eigenvalues)[..., :, None]  # diag(R) in its eigenbasis, as a column
        ranks = np.sum(self.eigenvalues > 0, axis=-1)
        if np.min(ranks) != np.max(ranks):
            raise ValueError(f"the covariances of a stack must have one rank, not {np.min(ranks)} to {np.max(ranks)}")
        self._support = int(np.max(ranks))  # rank of Σ0: M is regular on the first `support` coordinates

    @cached_property
    def _root_outer(self) -> Array:
        """√(λ_i λ_j) on the support, of the dense form."""
        check_square_fits("the dense form of the smoothed loss", self._support)
        root = self._root[..., : self._support, :]
        return root * root.mT

    @cached_property
    def _smoothing_diagonal(self) -> Array:
        """ε diag(λ) on the support, of the dense form."""
        root = self._root[..., : self._support, :]
        return np.eye(self._support, dtype=root.dtype) * (self._epsilon_column * root**2)

    def with_smoothing(self, epsilon: ArrayLike) -> Self:
        """The loss on the same target with another ε; its spectrum is shared."""
        other = copy.copy(self)
        for name in ("_root_outer", "_smoothing_diagonal"):
            other.__dict__.pop(name, None)
        other._set_smoothing(epsilon)
        return other

    @classmethod
    def stacked(cls, losses: Sequence[Self]) -> Self:
        """One loss on the stack of the targets of losses of this type, each with its ε."""
        return cls(np.stack([loss.covariance for loss in losses]), [loss.epsilon for loss in losses])

    def normalized(self) -> Self:
        """See `CovarianceLoss.normalized`."""
        largest = float(self.eigenvalues[0])
        return type(self)(self.covariance / largest, self.epsilon / largest)

    @property
    def has_kink(self) -> bool:  # type: ignore[override]
        """ε = 0."""
        return not self.smoothed

    @property
    def smoothing(self) -> float | Array:  # type: ignore[override]
        """ε, one number or one for each target of a stack."""
        return float(self.epsilon) if self.shape == () else self.epsilon

    def local_rates(self, depth: int, kept: ArrayLike) -> tuple[Array, Array]:
        """See `closed_form_rates.bures_wasserstein`; ValueError where ε exceeds a kept eigenvalue."""
        return closed_form_rates.bures_wasserstein(self.eigenvalues, float(self.epsilon), depth, kept)

    def filling_rates(self, depth: int, kept: ArrayLike) -> Array:
        """N = 1: 2 (1 − √(λ_b/ε)), for ε = 0 −∞ (2 where λ_b = 0); N = 2, ε = 0: −2 √λ_b; else 0; b not in J."""
        return closed_form_rates.bures_wasserstein_filling(self.eigenvalues, float(self.epsilon), depth, kept)

    def global_rate(self, depth: int, least_singular_value: float) -> float:
        """4 N m^{2−1/N}/(m + ε), m = min(σ_n(W(0))², λ_n − ε)."""
        return closed_form_rates.bures_wasserstein_global(
            self.eigenvalues, float(self.epsilon), depth, least_singular_value
        )

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
        root = np.sqrt(self.eigenvalues)
        width = np.sqrt(spectrum + epsilon)
        lam_a, lam_b = pairs(self.eigenvalues, columns)
        root_a, root_b = pairs(root, columns)
        width_a, width_b = pairs(width, columns)
        m_sum = root_a * width_a + root_b * width_b
        transported = np.divide(lam_a + lam_b, m_sum, out=np.zeros_like(m_sum), where=m_sum > 0)
        Q = 4 - 2 * transported
        if self.smoothed:
            blur = root_a * root_b / (width_a * width_b)
            Q -= 4 * epsilon[..., None] * np.divide(blur, m_sum, out=np.zeros_like(m_sum), where=m_sum > 0)
        return Q

    def least_excess(self, squared_gradient: float) -> float:
        """‖∇L‖²/4: a step of ½ down the gradient loses at least that (paper.md section 8)."""
        return squared_gradient / 4

    @property
    def _epsilon_column(self) -> Array:
        """ε with two axes more, against matrices, in their precision."""
        return np.asarray(self.epsilon, dtype=self.eigenvalues.dtype)[..., None, None]

    def minimum_spectrum(self, rank: int) -> Array:
        """s*_j = (λ_j − ε)_+ for j ≤ rank, 0 beyond and where λ_j and ε agree to rounding (paper.md section 3)."""
        kept = np.arange(self.dimension) < rank
        return np.where(kept, soft_threshold(self.eigenvalues, self._epsilon_column[..., 0]), 0)

    def transport_map(self, W: ArrayLike) -> Array:
        """T = R (R (W Wᵀ + εI) R)^{-1/2} R, (..., n, n): optimal transport map from N(0, S + εI) to N(0, Σ0).

        Raises
        ------
        ValueError
            For ε = 0, where W Wᵀ is singular on the range of the target: N(0, S) then has no map to N(0, Σ0).
        """
        check_square_fits("the transport map", self.dimension)
        F = self._to_eigenbasis("W", W)
        A = (self._root * self._smoothed_factor(F))[..., : self._support, :]
        U, sigma, _ = np.linalg.svd(A, full_matrices=False)
        if sigma.shape[-1] < self._support or np.any(sigma[..., -1:] <= rank_tolerance(A) * sigma[..., :1]):
            raise ValueError("W must have full rank on the range of the target: for ε = 0 a singular one has no map")
        Omega = self.eigenvectors[..., : self._support] * self._root[..., : self._support, :].mT
        half = (Omega @ U) / np.sqrt(sigma)[..., None, :]
        return half @ half.mT

    def transport(self, W: ArrayLike, V: ArrayLike) -> Array:
        """T V, the transport map at W (..., n, d) applied to a block V (..., n, p).

        Linear in n for ε > 0 and few columns; else from `transport_map`.
        """
        F, E = self._to_eigenbasis("W", W), self._to_eigenbasis("V", V)
        if self.smoothed and is_thin(self.dimension, F.shape[-1]):
            transported = self._each(linear_forms.smoothed_transport, F, E)
            return self._basis.combine(transported)
        return self.transport_map(W) @ np.asarray(V)

    def empty_costs(self) -> Array:
        """(√λ_j − √ε)²; λ_j for ε = 0."""
        return (np.sqrt(self.eigenvalues) - np.sqrt(self._epsilon_column[..., 0])) ** 2

    def _smoothed_factor(self, F: Array) -> Array:
        """A = [F, √ε I], so that A Aᵀ = F Fᵀ + εI; F itself when ε = 0."""
        if not self.smoothed:
            return F
        noise = np.sqrt(self._epsilon_column) * np.eye(self.dimension, dtype=F.dtype)
        return np.concatenate([F, np.broadcast_to(noise, (*F.shape[:-2], *noise.shape[-2:]))], axis=-1)

    def _each(self, form: Callable[..., Array | np.floating], F: Array, *directions: Array) -> Array:
        """A form linear in n on each matrix of a stack with its own target; its nodes depend on all three."""
        batch = np.broadcast_shapes(F.shape[:-2], *(V.shape[:-2] for V in directions), self.shape)
        eigenvalues = np.broadcast_to(self.eigenvalues, (*batch, self.dimension))
        epsilon = np.broadcast_to(self.epsilon, batch)
        stacks = [np.broadcast_to(V, (*batch, *V.shape[-2:])) for V in (F, *directions)]
        results = [form(eigenvalues[i], float(epsilon[i]), *(V[i] for V in stacks)) for i in np.ndindex(batch)]
        return np.reshape(results, (*batch, *np.shape(results[0])))

    def value_in_eigenbasis(self, F: Array) -> Array:
        """‖A − R Q‖²_F + tr R (I − Q Qᵀ) R, Q the polar factor of R A (paper.md section 2, squared-distance form).

        In the form linear in n the minimum over the rank of F and the excess over it, two sums of squares.
        """
        columns = F.shape[-1]
        if self.smoothed and is_thin(self.dimension, columns):
            return self.minimum_value(columns) + self.excess_in_eigenbasis(F, columns)
        A = self._smoothed_factor(F)
        U, _, Vh = np.linalg.svd(self._root * A, full_matrices=False)
        distance = np.sum((A - self._root * (U @ Vh)) ** 2, axis=(-2, -1))
        outside = self._root[..., 0] ** 2 * (1 - np.sum(U**2, axis=-1))  # only where A has fewer than n columns
        return distance + (np.sum(outside, axis=-1) if A.shape[-1] < self.dimension else 0.0)

    def excess_in_eigenbasis(self, F: Array, rank: int) -> Array:
        """Sum-of-squares form of L − L*.

        ε > 0: with T* the transport map at the minimiser, t_j = 1 where s*_j > 0 and √(λ_j/ε) elsewhere,
        L − L* = ‖T*^{1/2} A − T*^{-1/2} R Q‖² + tr (I − T*)(S − S*). Where λ_{k+1} > ε the second term is negative, and
        a factor √(λ_{k+1}/ε) of the accuracy is lost; from λ_{k+1} = 1e4 ε on `small_smoothing` takes its place, except
        in the form linear in n. ε = 0: with R F = U σ Vᵀ and U_⊥ the complement of U,
        L − L* = ‖F − R U Vᵀ‖² + Σ_{j≤k} (λ_j − λ_k) |Ω_jᵀU_⊥|² + Σ_{j>k} (λ_k − λ_j) |Ω_jᵀU|².
        """
        eigenvalues = self.eigenvalues
        if is_thin(self.dimension, F.shape[-1]):
            F = _thin_factor(F, rank)
            lack = self._lack(F.shape[-1], rank)  # a narrower F is compared with the minimum over its own rank
            if self.smoothed:
                return self._each(linear_forms.smoothed_excess, F) + lack
            return linear_forms.unsmoothed_excess(eigenvalues, F) + lack
        if self.dimension < _FEWEST_ROWS_BY_MAPS or not self._has_maps(F, rank):
            return self._excess_by_svd(F, rank)
        return self.gradient_and_excess_near_diagonal(F, rank)[1][()]

    def _excess_by_svd(self, F: Array, rank: int) -> Array:
        """The sums of squares from the singular vectors of R A, whatever its condition."""
        eigenvalues, root = self.eigenvalues, self._root
        if not self.smoothed:
            F = _thin_factor(F, rank)
            width = F.shape[-1]
            U, _, Vh = np.linalg.svd(root * F, full_matrices=width < self.dimension)
            range_, complement = U[..., :width], U[..., width:]
            distance = np.sum((F - root * (range_ @ Vh[..., :width, :])) ** 2, axis=(-2, -1))
            last = eigenvalues[..., rank - 1 : rank]
            gap = eigenvalues - last
            leaked = np.sum(np.sum(range_**2, axis=-1)[..., rank:] * -gap[..., rank:], axis=-1)
            lost = np.sum(np.sum(complement**2, axis=-1)[..., :rank] * gap[..., :rank], axis=-1)
            missing = (rank - width) * last[..., 0]  # a narrower F lacks λ_k once a column
            return distance + leaked + lost + missing
        if self._barely_smoothed(rank):
            return self._each(partial(small_smoothing.smoothed_excess, rank=rank), _thin_factor(F, rank))
        filled = self.minimum_spectrum(rank) > 0
        transport = np.where(filled, 1.0, np.sqrt(eigenvalues / self._epsilon_column[..., 0]))
        scale = np.sqrt(transport)[..., :, None]
        scaled_root = np.divide(root, scale, out=np.zeros_like(root), where=scale > 0)
        A = self._smoothed_factor(F)
        U, _, Vh = np.linalg.svd(root * A, full_matrices=False)
        distance = np.sum((scale * A - scaled_root * (U @ Vh)) ** 2, axis=(-2, -1))
        return distance + np.sum(np.sum(F**2, axis=-1) * (1 - transport), axis=-1)

    def _barely_smoothed(self, rank: int) -> bool:
        """Whether ε is so small against an eigenvalue that stays empty that the excess has a form of its own."""
        if rank == self.dimension:
            return False
        ratio = self.eigenvalues[..., rank] / np.asarray(self.epsilon)
        return bool(np.max(ratio) > _BARELY_SMOOTHED and np.all(self.minimum_spectrum(rank)[..., rank - 1] > 0))

    def _smoothed_product(self, F: Array) -> Array:
        """M = R (F Fᵀ + εI) R on the support of Σ0, ε > 0."""
        rows = F[..., : self._support, :]
        return self._root_outer * (rows @ rows.mT) + self._smoothing_diagonal

    def _root_spectrum(self, F: Array) -> tuple[Array, Array]:
        """Eigenvalues √μ and eigenvectors of M^{1/2}, M the `_smoothed_product`."""
        mu, Q = np.linalg.eigh(self._smoothed_product(F))
        poor = np.any(mu[..., :1] <= _EIGH_CONDITION * mu[..., -1:], axis=-1)  # a zero target has no μ
        if not poor.any():
            return np.sqrt(mu), Q
        stacked = (self._root * self._smoothed_factor(F))[..., : self._support, :]  # a factor of M
        sigma = np.sqrt(np.maximum(mu, 0))
        U, singular, _ = np.linalg.svd(stacked[poor], full_matrices=False)
        sigma[poor], Q[poor] = singular, U
        return sigma, Q

    def gradient_in_eigenbasis(self, F: Array) -> Array:
        """2 (F − T F), from one eigh of M; for ε = 0 from the polar factor of R F."""
        if not self.smoothed:
            return 2 * (F - self._root * _polar_factor(self._root * F))
        if is_thin(self.dimension, F.shape[-1]):
            return self._each(linear_forms.smoothed_gradient, F)
        sigma, Q = self._root_spectrum(F)
        inverse_root = (Q / sigma[..., None, :]) @ Q.mT
        transported = (self._root_outer * inverse_root) @ F[..., : self._support, :]
        gradient = 2 * F
        gradient[..., : self._support, :] -= 2 * transported
        return gradient

    def gradient_along(self, F: Array, roots: RootPath) -> Array:
        """As `gradient_in_eigenbasis`, with M^{-1/2}, or (Xᵀ X)^{-1/2} of the polar factor, along a path."""
        if not self._may_follow(F):
            return self.gradient_in_eigenbasis(F)
        return self._step_along(F, roots)[0]

    def gradient_and_excess_along(self, F: Array, rank: int, roots: RootPath) -> tuple[Array, Array]:
        """From one root of M where it is well conditioned and S + εI is regular, else each by itself.

        Without smoothing the loss is ‖F − R Q‖² with the polar factor Q: ‖∇L‖²/4.
        """
        if not (self._may_follow(F) and self._has_maps(F, rank)):
            return super().gradient_and_excess_along(F, rank, roots)
        gradient, T, condition = self._step_along(F, roots)
        if self.smoothed:
            excess = self._excess_by_maps(F, rank, T, gradient)
        else:
            excess = np.asarray(np.sum(gradient**2, axis=(-2, -1)) / 4)
        poor = ~(condition > WELL_CONDITIONED)
        if poor.any():
            excess[poor] = self._of_members(poor)._excess_by_svd(F[poor], rank)
        return gradient, excess

    def _may_follow(self, F: Array) -> bool:
        """Whether the roots of a stack can be followed: a regular target, and no form linear in n."""
        n, width = F.shape[-2:]
        regular = F.ndim == 3 and self._support == n >= _FEWEST_ROWS_BY_MAPS
        return regular and not (self.smoothed and is_thin(n, width))

    def _step_along(self, F: Array, roots: RootPath) -> tuple[Array, Array, Array]:
        """Gradient, transport maps (of ε = 0 the polar factors of R F), and the condition of what was inverted."""
        if self.smoothed:

            def spectrum(members: NDArray[np.bool_]) -> tuple[Array, Array]:
                return self._of_members(members)._root_spectrum(F[members])

            inverse_root, condition = roots.inverse_root(self._smoothed_product(F), spectrum)
            T = self._root_outer * inverse_root
            return 2 * (F - T @ F), T, condition
        X = self._root * F
        tall = X if X.shape[-2] >= X.shape[-1] else X.mT
        poor = np.zeros(len(X), dtype=bool)

        def gram_spectrum(members: NDArray[np.bool_]) -> tuple[Array, Array]:
            mu, V = np.linalg.eigh(gram[members])
            poor[members] = mu[:, 0] <= _GRAM_CONDITION * mu[:, -1]
            largest = mu[:, -1:]
            return np.sqrt(np.where(largest > 0, np.maximum(mu, _LEAST * largest), 1)), V

        gram = tall.mT @ tall
        inverse_root, condition = roots.inverse_root(gram, gram_spectrum)
        polar = tall @ inverse_root
        if poor.any():
            polar[poor], condition[poor] = _polar_by_svd(tall[poor]), 0.0
        polar = polar if tall is X else polar.mT
        return 2 * (F - self._root * polar), polar, condition

    def gradient_near_diagonal(self, F: Array) -> Array:
        """2 (F − T F), with M^{-1/2} by `near_diagonal_inverse_root` where that finds it."""
        if not self._has_maps(F, F.shape[-1]):
            return self.gradient_in_eigenbasis(F)
        inverse_root, near = near_diagonal_inverse_root(self._smoothed_product(F))
        gradient = 2 * (F - (self._root_outer * inverse_root) @ F)
        if not near.all():
            far = ~near
            gradient[far] = self._of_members(far).gradient_in_eigenbasis(F[far])
        return gradient

    def gradient_and_excess_near_diagonal(self, F: Array, rank: int) -> tuple[Array, Array]:
        """As `gradient_near_diagonal`, and the excess from the same root of M where that is well conditioned."""
        if not self._has_maps(F, rank):
            return super().gradient_and_excess_near_diagonal(F, rank)
        inverse_root, well = well_conditioned_inverse_root(self._smoothed_product(F))
        T = self._root_outer * inverse_root
        gradient = 2 * (F - T @ F)
        excess = self._excess_by_maps(F, rank, T, gradient)
        if not well.all():
            poor, some = F[~well], self._of_members(~well)
            gradient[~well], excess[~well] = some.gradient_in_eigenbasis(poor), some._excess_by_svd(poor, rank)
        return gradient, excess

    def _has_maps(self, F: Array, rank: int) -> bool:
        """Whether all F may have a transport map that is known from M alone, in double precision."""
        n, width = F.shape[-2:]
        if self._support < n or np.result_type(F, self.eigenvalues) != np.float64:
            return False
        return not is_thin(n, width) if self.smoothed else width == rank == n

    def _of_members(self, which: NDArray[np.bool_]) -> Self:
        """The loss on the targets of some matrices of a stack, whose last axes are those of the targets."""
        if not self.shape:
            return self
        return self.take(np.ravel_multi_index(np.nonzero(which)[-len(self.shape) :], self.shape))

    def _excess_by_maps(self, F: Array, rank: int, T: Array, gradient: Array) -> Array:
        """Excess from the transport maps T, those of a well-conditioned M, and the gradient. See `_has_maps`.

        With t the eigenvalues of T*, `_excess_by_svd` is ‖D F‖² + ε ‖D‖² + Σ_j (1 − t_j) S_jj,
        D = T*^{1/2} − T*^{-1/2} T: where no direction is empty D = I − T and L − L* = ‖∇L‖²/4 + ε ‖D‖².
        """
        n = self.dimension
        if self.smoothed and self._barely_smoothed(rank):
            return self._excess_by_svd(F, rank)
        if not self.smoothed or (self.minimum_spectrum(rank) > 0).all():
            excess = np.sum(gradient**2, axis=(-2, -1)) / 4
            if self.smoothed:
                excess += self.epsilon * np.sum((np.eye(n) - T) ** 2, axis=(-2, -1))
        else:
            epsilon = self._epsilon_column[..., 0]
            t = np.where(self.minimum_spectrum(rank) > 0, 1.0, np.sqrt(self.eigenvalues / epsilon))
            root = np.sqrt(t)[..., :, None]
            transported = F - gradient / 2
            excess = np.sum((root * F - transported / root) ** 2, axis=(-2, -1))
            excess += self.epsilon * np.sum((root * np.eye(n) - T / root) ** 2, axis=(-2, -1))
            excess += np.sum(np.sum(F**2, axis=-1) * (1 - t), axis=-1)
        return np.asarray(excess)

    def hessian_product_in_eigenbasis(self, F: Array, V: Array, rank: int | None = None) -> Array:
        """2 (I − T) V − 2 R D R F (paper.md section 2); through the derivative of the polar factor for ε = 0."""
        if self.smoothed and is_thin(self.dimension, F.shape[-1]):
            return self._each(linear_forms.smoothed_hessian_product, F, V)
        return self.hessian_operator_in_eigenbasis(F, rank)(V)

    def hessian_operator_in_eigenbasis(self, F: Array, rank: int | None = None) -> Callable[[Array], Array]:
        """The products at one F, decomposed once; for a single thin F it keeps n k numbers per node."""
        support = self._support
        if support == 0:  # a zero target: L = ‖W‖² + nε
            return lambda V: 2 * V
        F_ = F[..., :support, :]
        if not self.smoothed:
            root = self._root[..., :support, :]
            polar_derivative = _polar_derivative(root * F_, rank)

            def unsmoothed(V: Array) -> Array:
                product = 2 * V
                product[..., :support, :] -= 2 * root * polar_derivative(root * V[..., :support, :])
                return product

            return unsmoothed
        if is_thin(self.dimension, F.shape[-1]):
            if F.ndim > 2 or self.shape:
                return super().hessian_operator_in_eigenbasis(F, rank)
            return linear_forms.smoothed_hessian_operator(self.eigenvalues, float(self.epsilon), F)
        sigma, Q = self._root_spectrum(F)
        inverse_root = (Q / sigma[..., None, :]) @ Q.mT
        rows, columns = sigma[..., :, None], sigma[..., None, :]

        def smoothed(V: Array) -> Array:
            V_, product = V[..., :support, :], 2 * V
            E = self._root_outer * (V_ @ F_.mT + F_ @ V_.mT)
            inner = Q.mT @ E @ Q / (rows * columns * (rows + columns))
            derivative = -Q @ inner @ Q.mT  # D = d M^{-1/2}
            product[..., :support, :] -= 2 * (self._root_outer * inverse_root) @ V_
            product[..., :support, :] -= 2 * (self._root_outer * derivative) @ F_
            return product

        return smoothed
