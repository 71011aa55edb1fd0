"""The losses on the end-to-end matrix: Bures-Wasserstein (smoothed) and Frobenius.

Both depend on a matrix W only through S = W Wᵀ, and are evaluated in the basis Ω of the target
Σ0 = Ω diag(λ) Ωᵀ, where the target and its root are diagonal: products with R = Σ0^{1/2} become
row scalings. The methods `…_in_eigenbasis` work there, on F = Ωᵀ W. A loss may hold a stack of
targets, one for each member of a stack of matrices.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from . import flow_rates
from .psd import Array, finite_array, soft_threshold, spectrum, symmetrize

#: Below this μ_n/μ_1 the spectrum of M is taken from singular values instead: eigh gives it to an
#: absolute eps·μ_1, and the transport map needs μ^{-1/2}.
_EIGH_CONDITION = 1e-6
#: The same for ε = 0, where singular values cost less and critical points are to be told to 1e-10.
_GRAM_CONDITION = 1e-5
#: Singular values that vanish but for the rounding of a product of layers: below this many rank tolerances.
_PRODUCT_ROUNDING = 1e3


def _transpose(matrix: Array) -> Array:
    return matrix.swapaxes(-1, -2)


def _rank_tolerance(matrix: Array) -> float:
    """Share of the largest singular value below which others count as zero: max(n, d) · eps."""
    return max(matrix.shape[-2:]) * float(np.finfo(matrix.dtype).eps)


class CovarianceLoss(ABC):
    """A loss L(W) = ℓ(W Wᵀ) that compares the generated covariance S = W Wᵀ with a target.

    Parameters
    ----------
    covariance : (..., n, n)
        Target Σ0, symmetric positive semidefinite; or a stack of targets.

    Attributes
    ----------
    covariance, eigenvalues, eigenvectors
        Σ0 and its spectrum: λ_1 ≥ … ≥ λ_n in `eigenvalues`, Ω in the columns of `eigenvectors`.

    Notes
    -----
    Every method takes stacks: W of shape (..., n, d), for any d ≥ 1. With a stack of targets the leading
    axes of W end in those of the targets, each matrix meets its own, and what is a number for one target
    has the shape of the stack.
    """

    #: Name in configurations and tables.
    name: str
    #: d, with L(c W; c² Σ0) = c^d L(W; Σ0), and c² ε for ε: the loss has the unit of λ_1^{d/2}.
    degree: int
    #: What figures and printed tables call it.
    label: str
    #: ε, one number or one for each target of a stack; 0 for a loss without smoothing.
    smoothing: float | Array = 0.0
    #: Attributes with the leading axes of the stack of targets.
    _stacked: tuple[str, ...] = ("covariance", "eigenvalues", "eigenvectors")

    def __init__(self, covariance: ArrayLike) -> None:
        self.eigenvalues, self.eigenvectors = spectrum("covariance", covariance)
        if np.any(self.eigenvalues[..., 0] == 0):
            raise ValueError("covariance must not be zero: a target without variance has nothing to learn")
        self.covariance = symmetrize(np.asarray(covariance, dtype=self.eigenvalues.dtype))

    @property
    def dimension(self) -> int:
        """n, the dimension of the data."""
        return self.eigenvalues.shape[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the stack of targets; () for one target."""
        return self.eigenvalues.shape[:-1]

    def take(self, members: ArrayLike) -> Self:
        """Loss on some members of the stack of targets, chosen as from a flat array: one index gives one target.

        A loss on one target gives itself.
        """
        if self.shape == ():
            return self
        taken = copy.copy(self)
        for name in self._stacked:
            values = getattr(self, name)
            setattr(taken, name, values.reshape(-1, *values.shape[len(self.shape) :])[np.asarray(members)])
        return taken

    def value(self, W: ArrayLike) -> Array:
        """L(W): shape (...) for W of shape (..., n, d)."""
        return self.value_in_eigenbasis(self._to_eigenbasis("W", W))

    def excess(self, W: ArrayLike, rank: int | None = None) -> Array:
        """L(W) − L*, with L* the minimum over matrices of rank ≤ `rank` (default: n), for W of that rank.

        Computed as a sum of squares rather than as a difference of traces, which ends in noise near
        1e-14: the relative error is at most about 24 eps √(λ_1/(L − L*)), and comes from the rounding of W
        and of Σ0's eigenvalues themselves.
        """
        F = self._to_eigenbasis("W", W)
        return self.excess_in_eigenbasis(F, self._checked_rank(rank))

    def gradient(self, W: ArrayLike) -> Array:
        """∇L(W), shape of W."""
        return self.eigenvectors @ self.gradient_in_eigenbasis(self._to_eigenbasis("W", W))

    def hessian_product(self, W: ArrayLike, V: ArrayLike, rank: int | None = None) -> Array:
        """∇²L(W)[V], the derivative of the gradient along V.

        Parameters
        ----------
        W : (..., n, d)
        V : (..., n, d)
            One direction for each W; or a stack of directions for one W.
        rank
            Rank of W. It matters for the Bures-Wasserstein loss with ε = 0 alone, which has second
            derivatives within the matrices of one rank and, below full rank, in no other direction: V must
            then be tangent to them, (I − U Uᵀ) V (I − Y Yᵀ) = 0 for W = U σ Yᵀ. Default min(n, d).

        Raises
        ------
        ValueError
            If the shapes do not fit, or where there is no second derivative.
        """
        F, E = self._to_eigenbasis("W", W), self._to_eigenbasis("V", V)
        if F.shape[-2:] != E.shape[-2:] or np.broadcast_shapes(F.shape, E.shape) != E.shape:
            raise ValueError(f"V must have the shape of W, {F.shape}, not {E.shape}")
        return self.eigenvectors @ self.hessian_product_in_eigenbasis(F, E, rank)

    def minimum(self, rank: int | None = None) -> tuple[Array, Array]:
        """Minimiser S* = Ω diag(s*) Ωᵀ over covariances of rank ≤ `rank` (default: n), and its loss L*.

        paper.md section 3: the k largest eigenvalues, the same choice as in Eckart-Young.
        """
        rank = self._checked_rank(rank)
        spectrum = self.minimum_spectrum(rank)
        covariance = (self.eigenvectors * spectrum[..., None, :]) @ _transpose(self.eigenvectors)
        return symmetrize(covariance), self.minimum_value(rank)

    @abstractmethod
    def minimum_spectrum(self, rank: int) -> Array:
        """Eigenvalues s*_1 ≥ … ≥ s*_n of the minimiser over rank ≤ `rank`, shape (..., n)."""

    @abstractmethod
    def missing(self) -> Array:
        """What each direction Ω_j adds to the loss of a critical point that leaves it empty, shape (..., n)."""

    def minimum_value(self, rank: int) -> Array:
        """L*, the minimum over rank ≤ `rank`, shape (...): what the empty directions add (paper.md section 3)."""
        return np.sum(np.where(self.minimum_spectrum(rank) > 0, 0, self.missing()), axis=-1)

    def saddle_values(self, rank: int) -> Array:
        """Loss at the critical points that keep the i largest eigenvalues, i = 0..rank: the energy levels."""
        missing = self.missing()
        gained = np.where(self.minimum_spectrum(self.dimension) > 0, missing, 0)  # the others stay empty
        gained = np.concatenate([np.zeros((*self.shape, 1)), gained[..., :rank]], axis=-1)
        return missing.sum(axis=-1, keepdims=True) - np.cumsum(gained, axis=-1)

    def local_rates(self, depth: int, kept: ArrayLike) -> tuple[Array, Array] | None:
        """In-block and off-block rates of the reduced flow of N layers at W_J, for one target.

        Parameters
        ----------
        depth
            N.
        kept
            J, indices from 0.

        Returns
        -------
        in_block : (|J| (|J|+1)/2,)
        off_block : (|J| (n−|J|),)
            Or None: no closed form is known. That is so unless a loss defines it.
        """
        return None

    def filling_rates(self, kept: ArrayLike) -> Array | None:
        """Curvature along an empty column of W_J in each direction b not in J, (n−|J|,); None where unknown."""
        return None

    def global_rate(self, depth: int, least_singular_value: float) -> float | None:
        """Proved rate r of the balanced flow with k = n: L(t) ≤ L(0) exp(−r t); None where none is proved.

        `least_singular_value` is σ_n(W(0)) (paper.md section 8).
        """
        return None

    @abstractmethod
    def value_in_eigenbasis(self, F: Array) -> Array:
        """L from F = Ωᵀ W."""

    @abstractmethod
    def excess_in_eigenbasis(self, F: Array, rank: int) -> Array:
        """L − L* from F = Ωᵀ W."""

    @abstractmethod
    def gradient_in_eigenbasis(self, F: Array) -> Array:
        """Ωᵀ ∇L from F = Ωᵀ W."""

    @abstractmethod
    def hessian_product_in_eigenbasis(self, F: Array, V: Array, rank: int | None = None) -> Array:
        """Ωᵀ ∇²L[Ω V] from F = Ωᵀ W; see `hessian_product`."""

    def _to_eigenbasis(self, name: str, W: ArrayLike) -> Array:
        W = finite_array(name, W, 2)
        if W.shape[-2] != self.dimension:
            raise ValueError(f"{name} must have {self.dimension} rows, as many as the covariance, not shape {W.shape}")
        return _transpose(self.eigenvectors).astype(W.dtype, copy=False) @ W

    def _checked_rank(self, rank: int | None) -> int:
        rank = self.dimension if rank is None else rank
        if not 1 <= rank <= self.dimension:
            raise ValueError(f"rank must lie between 1 and the dimension {self.dimension}, not {rank}")
        return rank


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
    _stacked = (*CovarianceLoss._stacked, "epsilon", "_root", "_root_outer", "_smoothing")

    def __init__(self, covariance: ArrayLike, epsilon: ArrayLike = 0.0) -> None:
        super().__init__(covariance)
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
        root = self._root[..., : self._support, :]
        self._root_outer = root * _transpose(root)
        self._smoothing = np.eye(self._support, dtype=root.dtype) * (self._epsilon_column * root**2)

    @property
    def smoothing(self) -> float | Array:  # type: ignore[override]
        """ε, one number or one for each target of a stack."""
        return float(self.epsilon) if self.shape == () else self.epsilon

    def local_rates(self, depth: int, kept: ArrayLike) -> tuple[Array, Array]:
        """See `flow_rates.bures_wasserstein`; ValueError where ε exceeds a kept eigenvalue."""
        return flow_rates.bures_wasserstein(self.eigenvalues, float(self.epsilon), depth, kept)

    def filling_rates(self, kept: ArrayLike) -> Array:
        """2 (1 − √(λ_b/ε)), b not in J; for ε = 0 −∞, or 2 where λ_b = 0."""
        return flow_rates.bures_wasserstein_filling(self.eigenvalues, float(self.epsilon), kept)

    def global_rate(self, depth: int, least_singular_value: float) -> float:
        """4 N m^{2−1/N}/(m + ε), m = min(σ_n(W(0))², λ_n − ε)."""
        return flow_rates.bures_wasserstein_global(self.eigenvalues, float(self.epsilon), depth, least_singular_value)

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
        F = self._to_eigenbasis("W", W)
        A = (self._root * self._smoothed_factor(F))[..., : self._support, :]
        U, sigma, _ = np.linalg.svd(A, full_matrices=False)
        if sigma.shape[-1] < self._support or np.any(sigma[..., -1] <= _rank_tolerance(A) * sigma[..., 0]):
            raise ValueError("W must have full rank on the range of the target: for ε = 0 a singular one has no map")
        Omega = self.eigenvectors[..., : self._support] * _transpose(self._root[..., : self._support, :])
        half = (Omega @ U) / np.sqrt(sigma)[..., None, :]
        return half @ _transpose(half)

    def missing(self) -> Array:
        """(√λ_j − √ε)²; λ_j for ε = 0."""
        return (np.sqrt(self.eigenvalues) - np.sqrt(self._epsilon_column[..., 0])) ** 2

    def _smoothed_factor(self, F: Array) -> Array:
        """A = [F, √ε I], so that A Aᵀ = F Fᵀ + εI; F itself when ε = 0."""
        if not self.smoothed:
            return F
        noise = np.sqrt(self._epsilon_column) * np.eye(self.dimension, dtype=F.dtype)
        return np.concatenate([F, np.broadcast_to(noise, (*F.shape[:-2], *noise.shape[-2:]))], axis=-1)

    def value_in_eigenbasis(self, F: Array) -> Array:
        """‖A − R Q‖²_F + tr R (I − Q Qᵀ) R, Q the polar factor of R A (paper.md section 2, squared-distance form)."""
        A = self._smoothed_factor(F)
        U, _, Vh = np.linalg.svd(self._root * A, full_matrices=False)
        distance = np.sum((A - self._root * (U @ Vh)) ** 2, axis=(-2, -1))
        outside = self._root[..., 0] ** 2 * (1 - np.sum(U**2, axis=-1))  # only where A has fewer than n columns
        return distance + (np.sum(outside, axis=-1) if A.shape[-1] < self.dimension else 0.0)

    def excess_in_eigenbasis(self, F: Array, rank: int) -> Array:
        """Sum-of-squares form of L − L*.

        ε > 0: with T* the transport map at the minimiser, t_j = 1 where s*_j > 0 and √(λ_j/ε) elsewhere,
        L − L* = ‖T*^{1/2} A − T*^{-1/2} R Q‖² + tr (I − T*)(S − S*).
        ε = 0: with R F = U σ Vᵀ and U_⊥ the complement of U,
        L − L* = ‖F − R U Vᵀ‖² + Σ_{j≤k} (λ_j − λ_k) |Ω_jᵀU_⊥|² + Σ_{j>k} (λ_k − λ_j) |Ω_jᵀU|².
        """
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
        filled = self.minimum_spectrum(rank) > 0
        transport = np.where(filled, 1.0, np.sqrt(eigenvalues / self._epsilon_column[..., 0]))
        scale = np.sqrt(transport)[..., :, None]
        scaled_root = np.divide(root, scale, out=np.zeros_like(root), where=scale > 0)
        A = self._smoothed_factor(F)
        U, _, Vh = np.linalg.svd(root * A, full_matrices=False)
        distance = np.sum((scale * A - scaled_root * (U @ Vh)) ** 2, axis=(-2, -1))
        return distance + np.sum(np.sum(F**2, axis=-1) * (1 - transport), axis=-1)

    def _root_spectrum(self, F: Array) -> tuple[Array, Array]:
        """Eigenvalues √μ and eigenvectors of M^{1/2}, M = R (F Fᵀ + εI) R on the support of Σ0, ε > 0."""
        rows = F[..., : self._support, :]
        mu, Q = np.linalg.eigh(self._root_outer * (rows @ _transpose(rows)) + self._smoothing)
        poor = mu[..., 0] <= _EIGH_CONDITION * mu[..., -1]
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
        sigma, Q = self._root_spectrum(F)
        inverse_root = (Q / sigma[..., None, :]) @ _transpose(Q)
        transported = (self._root_outer * inverse_root) @ F[..., : self._support, :]
        gradient = 2 * F
        gradient[..., : self._support, :] -= 2 * transported
        return gradient

    def hessian_product_in_eigenbasis(self, F: Array, V: Array, rank: int | None = None) -> Array:
        """2 (I − T) V − 2 R D R F (paper.md section 2); through the derivative of the polar factor for ε = 0."""
        support = self._support
        F_, V_ = F[..., :support, :], V[..., :support, :]
        product = 2 * V
        if not self.smoothed:
            root = self._root[..., :support, :]
            product[..., :support, :] -= 2 * root * _polar_derivative(root * F_, root * V_, rank)
            return product
        sigma, Q = self._root_spectrum(F)
        inverse_root = (Q / sigma[..., None, :]) @ _transpose(Q)
        E = self._root_outer * (V_ @ _transpose(F_) + F_ @ _transpose(V_))
        rows, columns = sigma[..., :, None], sigma[..., None, :]
        inner = _transpose(Q) @ E @ Q / (rows * columns * (rows + columns))
        derivative = -Q @ inner @ _transpose(Q)  # D = d M^{-1/2}
        product[..., :support, :] -= 2 * (self._root_outer * inverse_root) @ V_
        product[..., :support, :] -= 2 * (self._root_outer * derivative) @ F_
        return product


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

    def local_rates(self, depth: int, kept: ArrayLike) -> tuple[Array, Array]:
        """See `flow_rates.frobenius`."""
        return flow_rates.frobenius(self.eigenvalues, depth, kept)

    def filling_rates(self, kept: ArrayLike) -> Array:
        """−4 λ_b, b not in J."""
        return flow_rates.frobenius_filling(self.eigenvalues, kept)

    def global_rate(self, depth: int, least_singular_value: float) -> float:
        """16 N m^{2−1/N}, m = min(σ_n(W(0))², λ_n)."""
        return flow_rates.frobenius_global(self.eigenvalues, depth, least_singular_value)

    def minimum_spectrum(self, rank: int) -> Array:
        """λ_j for j ≤ rank, 0 beyond (Eckart-Young)."""
        return np.where(np.arange(self.dimension) < rank, self.eigenvalues, 0)

    def missing(self) -> Array:
        """λ_j²."""
        return self.eigenvalues**2

    def _residual(self, F: Array) -> Array:
        return F @ _transpose(F) - (np.eye(self.dimension) * self.eigenvalues[..., None]).astype(F.dtype, copy=False)

    def value_in_eigenbasis(self, F: Array) -> Array:
        """‖F Fᵀ − Λ‖²."""
        return np.sum(self._residual(F) ** 2, axis=(-2, -1))

    def excess_in_eigenbasis(self, F: Array, rank: int) -> Array:
        """‖S − S*‖² − 2 Σ_{j>k} λ_j S_jj: the cross term of ‖(S − S*) + (S* − Σ0)‖²."""
        difference = F @ _transpose(F) - np.eye(self.dimension) * self.minimum_spectrum(rank)[..., None]
        cross = np.sum(np.sum(F**2, axis=-1)[..., rank:] * self.eigenvalues[..., rank:], axis=-1)
        return np.sum(difference**2, axis=(-2, -1)) - 2 * cross

    def gradient_in_eigenbasis(self, F: Array) -> Array:
        """4 (F Fᵀ − Λ) F."""
        return 4 * self._residual(F) @ F

    def hessian_product_in_eigenbasis(self, F: Array, V: Array, rank: int | None = None) -> Array:
        """4 (S − Σ0) V + 4 (V Wᵀ + W Vᵀ) W."""
        return 4 * (self._residual(F) @ V + (V @ _transpose(F) + F @ _transpose(V)) @ F)


#: Every loss, by its name in configurations.
LOSSES: dict[str, type[CovarianceLoss]] = {loss.name: loss for loss in (BuresWasserstein, Frobenius)}


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
    if rank < sigma.shape[-1] and np.any(sigma[..., rank] > _rank_tolerance(F) * sigma[..., 0]):
        raise ValueError(f"W must have rank ≤ {rank} to be compared with the minimum over that rank")
    return (U * sigma[..., None, :])[..., :rank]


def _polar_factor(X: Array) -> Array:
    """U Vᵀ of X = U σ Vᵀ, without the directions in which σ vanishes to rounding."""
    tall = X if X.shape[-2] >= X.shape[-1] else _transpose(X)
    mu, V = np.linalg.eigh(_transpose(tall) @ tall)
    poor = mu[..., 0] <= _GRAM_CONDITION * mu[..., -1]
    sigma = np.sqrt(np.where(poor[..., None], 1, mu))
    polar = tall @ ((V / sigma[..., None, :]) @ _transpose(V))
    if poor.any():
        U, sigma, Vh = np.linalg.svd(tall[poor], full_matrices=False)
        kept = sigma > _rank_tolerance(X) * sigma[..., :1]
        polar[poor] = (U * kept[..., None, :]) @ Vh
    return polar if tall is X else _transpose(polar)


def _polar_derivative(X: Array, dX: Array, rank: int | None = None) -> Array:
    """Derivative of the polar factor U Vᵀ of X = U σ Vᵀ along dX, within the matrices of the rank of X.

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
    tolerance = _rank_tolerance(X) * sigma[..., 0]
    if np.any(sigma[..., rank - 1] <= tolerance):
        raise ValueError(
            f"W must have rank {rank} on the range of the target: "
            "for ε = 0 the loss is not twice differentiable at a matrix of lower rank"
        )
    if rank < full and np.any(sigma[..., rank] > _PRODUCT_ROUNDING * tolerance):
        raise ValueError(f"W must have rank {rank}, as given, and not a higher one")
    U, sigma, Vh = U[..., :rank], sigma[..., :rank], Vh[..., :rank, :]
    V = _transpose(Vh)
    along = dX @ V
    core = _transpose(U) @ along
    rotation = (core - _transpose(core)) / (sigma[..., :, None] + sigma[..., None, :])
    derivative = U @ rotation @ Vh
    if X.shape[-2] > rank:
        derivative += ((along - U @ core) / sigma[..., None, :]) @ Vh
    if X.shape[-1] > rank:
        rows = _transpose(U) @ dX
        derivative += (U / sigma[..., None, :]) @ (rows - (rows @ V) @ Vh)
    return derivative
