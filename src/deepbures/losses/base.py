"""What all losses on the end-to-end matrix have in common; to add one, see `CovarianceLoss` and `losses.LOSSES`.

A loss depends on a matrix W only through S = W Wᵀ, and is evaluated in the basis Ω of the target
Σ0 = Ω diag(λ) Ωᵀ, where the target and its root are diagonal: products with R = Σ0^{1/2} become
row scalings. The methods `…_in_eigenbasis` work there, on F = Ωᵀ W. A loss may hold a stack of
targets, one for each member of a stack of matrices.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..linalg.eigenbasis import DenseBasis, Eigenbasis, eigenbasis
from ..linalg.psd import INPUT_TOLERANCE, Array, check_square_fits, finite_array, spectrum, symmetrize
from ..linalg.root_path import RootPath
from ..linalg.roots import gram_pseudo_inverse
from ..linalg.sample_covariance import sample_spectrum


class CovarianceLoss(ABC):
    """A loss L(W) = ℓ(W Wᵀ) that compares the generated covariance S = W Wᵀ with a target.

    Parameters
    ----------
    covariance : (..., n, n)
        Target Σ0, symmetric positive semidefinite; or a stack of targets.

    Attributes
    ----------
    eigenvalues
        λ_1 ≥ … ≥ λ_n of Σ0.
    covariance, eigenvectors
        Σ0, and Ω with one eigenvector per column. For a loss made from a spectrum or from samples these n × n arrays
        are computed when they are first asked for.

    Notes
    -----
    Every method takes stacks: W of shape (..., n, d), for any d ≥ 1. With a stack of targets the leading
    axes of W end in those of the targets, each matrix is compared with its own target, and what is a number for one
    target has the shape of the stack.
    """

    #: Name in configurations and tables.
    name: str
    #: d, with L(c W; c² Σ0, c² ε) = c^d L(W; Σ0, ε): the loss has the unit of λ_1^{d/2}.
    degree: int
    #: What figures and printed tables call it.
    label: str
    #: ε, one number or one for each target of a stack; 0 for a loss without smoothing.
    smoothing: float | Array = 0.0
    #: Whether it may have a smoothing ε > 0, see `with_smoothing`.
    takes_smoothing: bool = False
    #: Whether matrices of rank ≤ k < n have no second derivatives towards a higher rank: where W Wᵀ is singular the
    #: Bures-Wasserstein loss without smoothing has a kink.
    has_kink: bool = False
    #: Whether `multiplier` and `curvature` are known: the flow is then integrated by collocation.
    has_linear_part: bool = False
    #: Attributes with the leading axes of the stack of targets, and those that are computed from them when needed.
    _stacked: tuple[str, ...] = ("eigenvalues",)
    _derived: tuple[str, ...] = ("covariance",)

    def __init__(self, covariance: ArrayLike) -> None:
        eigenvalues, eigenvectors = spectrum("covariance", covariance)
        self._set_target(eigenvalues, DenseBasis(eigenvectors))
        self.covariance = symmetrize(np.asarray(covariance, dtype=eigenvalues.dtype))

    def _set_target(self, eigenvalues: Array, basis: Eigenbasis) -> None:
        """Take the target with this spectrum, eigenvalues (..., n)."""
        self.eigenvalues = eigenvalues
        self._basis = basis

    @classmethod
    def from_spectrum(cls, eigenvalues: ArrayLike, eigenvectors: ArrayLike | None = None) -> Self:
        """Loss on the target Ω diag(λ) Ωᵀ, which is never formed.

        Parameters
        ----------
        eigenvalues : (r,)
            λ_1 ≥ … ≥ λ_r ≥ 0, kept as they are: only what is below 0 by rounding (a relative 1e-8) becomes 0.
        eigenvectors : (n, r), optional
            Orthonormal columns, n ≥ r; the other n − r eigenvalues are 0. Without, the target is diagonal, n = r.

        Raises
        ------
        ValueError
            On eigenvalues that are negative or do not fall, or eigenvectors that do not fit or are not orthonormal.
        """
        values = finite_array("eigenvalues", eigenvalues, 1)
        tolerance = max(INPUT_TOLERANCE, 10 * float(np.finfo(values.dtype).eps))
        if values.ndim != 1 or np.any(np.diff(values) > 0):
            raise ValueError("eigenvalues must be one falling list λ_1 ≥ … ≥ λ_n, their eigenvectors in the same order")
        if values[-1] < -tolerance * np.abs(values).max():
            raise ValueError(f"eigenvalues must not be negative, but the least is {values[-1]:.6g}")
        basis = eigenbasis(len(values), eigenvectors)
        dimension = len(values) if eigenvectors is None else len(np.asarray(eigenvectors))
        loss = cls.__new__(cls)
        loss._set_target(np.pad(np.maximum(values, 0), (0, dimension - len(values))), basis)
        return loss

    @classmethod
    def from_samples(cls, X: ArrayLike) -> Self:
        """Loss on the covariance of samples, the mean of (x − x̄)(x − x̄)ᵀ: their mean x̄ is removed, and not modelled.

        By a thin SVD of the m samples: with m < n no n × n array is made, and the target has a rank below m.

        Parameters
        ----------
        X : (m, n)
            One sample per row, m ≥ 2. Singular values below max(m, n) · eps · σ_1 count as zero.

        Raises
        ------
        ValueError
            On fewer samples, entries that are not finite, or samples that are all the same.
        """
        return cls.from_spectrum(*sample_spectrum(X))

    @classmethod
    def stacked(cls, losses: Sequence[Self]) -> Self:
        """One loss on the stack of the targets of losses of this type."""
        return cls(np.stack([loss.covariance for loss in losses]))

    def with_smoothing(self, epsilon: ArrayLike) -> Self:
        """The loss on the same target with another ε; its spectrum is shared.

        Raises
        ------
        ValueError
            On ε > 0, for a loss that has none.
        """
        if np.any(np.asarray(epsilon) != 0):
            raise ValueError(f"epsilon must be 0: the loss {self.name!r} has no smoothing, not {epsilon!r}")
        return self

    @property
    def unit(self) -> float:
        """Σ_j λ_j^{d/2}, tr Σ0 or ‖Σ0‖²_F: the loss of W = 0 without smoothing, the unit of errors; of one target."""
        return float(np.sum(self.eigenvalues ** (self.degree / 2)))

    def normalized(self) -> Self:
        """The loss of Σ0/λ_1, and of ε/λ_1: its matrices, losses and gradients have no unit; of one target.

        L(W) = λ_1^{d/2} L̃(W/√λ_1) and ∇L(W) = λ_1^{(d−1)/2} ∇L̃(W/√λ_1), d the `degree` of the loss.
        """
        return type(self)(self.covariance / float(self.eigenvalues[0]))

    @cached_property
    def covariance(self) -> Array:
        """Σ0 = Ω diag(λ) Ωᵀ, (..., n, n)."""
        check_square_fits("covariance", self.dimension)
        vectors = self.eigenvectors
        return symmetrize((vectors * self.eigenvalues[..., None, :]) @ vectors.mT)

    @property
    def eigenvectors(self) -> Array:
        """Ω, (..., n, n)."""
        return self._basis.vectors()

    def to_eigenbasis(self, W: ArrayLike) -> Array:
        """Ωᵀ W for W of shape (..., n, d), without an n × n array where the loss holds none."""
        return self._to_eigenbasis("W", W)

    def from_eigenbasis(self, F: Array) -> Array:
        """Ω F for F of shape (..., n, d), likewise."""
        return self._basis.combine(F)

    def eigenvector_columns(self, indices: ArrayLike) -> Array:
        """Ω_J, the eigenvectors of the given indices, (n, |J|); of one target."""
        J = np.asarray(indices, dtype=np.intp)
        if isinstance(self._basis, DenseBasis):
            return self.eigenvectors[:, J]
        units = np.zeros((self.dimension, len(J)))
        units[J, np.arange(len(J))] = 1
        return self._basis.combine(units)

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

        def chosen(values: Array) -> Array:
            return values.reshape(-1, *values.shape[len(self.shape) :])[np.asarray(members)]

        for name in self._stacked:
            setattr(taken, name, chosen(getattr(self, name)))
        taken._basis = DenseBasis(chosen(self.eigenvectors))  # a stack comes from covariances
        for name in self._derived:
            if name in self.__dict__:
                taken.__dict__[name] = chosen(self.__dict__[name])
        return taken

    def value(self, W: ArrayLike) -> Array:
        """L(W): shape (...) for W of shape (..., n, d)."""
        return self.value_in_eigenbasis(self._to_eigenbasis("W", W))

    def excess(self, W: ArrayLike, rank: int | None = None) -> Array:
        """L(W) − L*, with L* the minimum over matrices of rank ≤ `rank` (default: n), for W of that rank.

        Computed as a sum of squares rather than as a difference of traces, which drowns in rounding errors near
        1e-14: the relative error is at most about 24 eps √(λ_1/(L − L*)), and comes from the rounding of W
        and of Σ0's eigenvalues themselves.
        """
        F = self._to_eigenbasis("W", W)
        return self.excess_in_eigenbasis(F, self._checked_rank(rank))

    def gradient(self, W: ArrayLike) -> Array:
        """∇L(W), shape of W."""
        return self._basis.combine(self.gradient_in_eigenbasis(self._to_eigenbasis("W", W)))

    def hessian_product(self, W: ArrayLike, V: ArrayLike, rank: int | None = None) -> Array:
        """∇²L(W)[V], the derivative of the gradient along V.

        Parameters
        ----------
        W : (..., n, d)
        V : (..., n, d)
            One direction for each W; or a stack of directions for one W.
        rank
            Rank of W. It matters only for the Bures-Wasserstein loss with ε = 0, which has second
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
        return self._basis.combine(self.hessian_product_in_eigenbasis(F, E, rank))

    def hessian_operator(self, W: ArrayLike, rank: int | None = None) -> Callable[[ArrayLike], Array]:
        """V ↦ ∇²L(W)[V] for many V (..., n, d) at one W: what depends on W alone is computed once.

        See `hessian_product`, also for the errors.
        """
        F = self._to_eigenbasis("W", W)
        product = self.hessian_operator_in_eigenbasis(F, rank)
        return lambda V: self._basis.combine(product(self._to_eigenbasis("V", V)))

    def minimum(self, rank: int | None = None) -> tuple[Array, Array]:
        """Minimiser S* = Ω diag(s*) Ωᵀ over covariances of rank ≤ `rank` (default: n), and its loss L*.

        It keeps the k largest eigenvalues, as in Eckart-Young: s*_j = (λ_j − ε)_+ for the Bures-Wasserstein loss, λ_j
        for the square loss, j ≤ k. L* is the sum of what the empty directions add (paper.md section 3).
        """
        rank = self._checked_rank(rank)
        spectrum = self.minimum_spectrum(rank)
        check_square_fits("the minimiser S*", self.dimension)
        vectors = self.eigenvectors
        covariance = (vectors * spectrum[..., None, :]) @ vectors.mT
        return symmetrize(covariance), self.minimum_value(rank)

    def minimum_factor(self, rank: int) -> Array:
        """Minimiser W* = Ω_1 diag(√s*) over matrices of rank ≤ k, (n, k), without S* = W* W*ᵀ; of one target."""
        kept = np.arange(self._checked_rank(rank))
        return self.eigenvector_columns(kept) * np.sqrt(self.minimum_spectrum(rank)[kept])

    @abstractmethod
    def minimum_spectrum(self, rank: int) -> Array:
        """Eigenvalues s*_1 ≥ … ≥ s*_n of the minimiser over rank ≤ `rank`, shape (..., n)."""

    @abstractmethod
    def empty_costs(self) -> Array:
        """What each direction Ω_j adds to the loss of a critical point that leaves it empty, shape (..., n)."""

    def minimum_value(self, rank: int) -> Array:
        """L*, the minimum over rank ≤ `rank`, shape (...): what the empty directions add (paper.md section 3)."""
        return np.sum(np.where(self.minimum_spectrum(rank) > 0, 0, self.empty_costs()), axis=-1)

    def saddle_values(self, rank: int) -> Array:
        """Loss at the critical points that keep the i largest eigenvalues, i = 0..rank: the energy levels."""
        costs = self.empty_costs()
        gained = np.where(self.minimum_spectrum(self.dimension) > 0, costs, 0)  # the others stay empty
        gained = np.concatenate([np.zeros((*self.shape, 1)), gained[..., :rank]], axis=-1)
        return costs.sum(axis=-1, keepdims=True) - np.cumsum(gained, axis=-1)

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
            Or None, where no closed form is known: the default, unless a loss defines it.
        """
        return None

    def filling_rates(self, depth: int, kept: ArrayLike) -> Array | None:
        """Rates of an empty column of W_J in each direction b not in J, (n−|J|,), < 0 where it grows; None if unknown.

        The columns are those of Z, which stands for N balanced layers: S = Z (Zᵀ Z)^{N−1} Zᵀ.
        """
        return None

    def global_rate(self, depth: int, least_singular_value: float) -> float | None:
        """Proved rate r of the balanced flow with k = n: L(t) ≤ L(0) exp(−r t); None where none is proved.

        `least_singular_value` is σ_n(W(0)) (paper.md section 8).
        """
        return None

    def multiplier(self, spectrum: Array) -> Array:
        """b with ∇L = diag(b) F at S = F Fᵀ = diag(s), s ≥ 0; b and s (..., n), in the eigenbasis (paper.md section 4).

        Raises
        ------
        ValueError
            For a loss whose linear part is not known, see `has_linear_part`.
        """
        raise ValueError(f"the loss {self.name!r} has no linear part in closed form (has_linear_part)")

    def curvature(self, spectrum: Array, columns: NDArray[np.intp] | None = None) -> Array:
        """Q with d(B S + S B)_ab = Q_ab dS_ab at S = diag(s), where ∇L = B(S) F: see `has_linear_part`.

        Parameters
        ----------
        spectrum : (..., n)
            s ≥ 0.
        columns : (..., k), optional
            Which b are wanted, for each member; default all.

        Returns
        -------
        curvature : (..., n, n) or (..., n, k)

        Raises
        ------
        ValueError
            For a loss whose linear part is not known, see `has_linear_part`.
        """
        raise ValueError(f"the loss {self.name!r} has no linear part in closed form (has_linear_part)")

    def least_excess(self, squared_gradient: float) -> float:
        """A lower bound on L − L* from ‖∇L‖²; 0 where none is known."""
        return 0.0

    def right_scaling(self, W: Array) -> Array:
        """C, symmetric positive semidefinite (d, d), that multiplies the gradient at W (n, d) in scaled descent.

        I + ε (Wᵀ W)⁺. At the minimum of a Bures-Wasserstein loss the rates r_ab = 2 (s_a + s_b)/(λ_a + λ_b) within its
        range (paper.md section 4, N = 1, s = λ − ε) become 2, whatever ε < λ; for ε = 0 they are 2 already, and
        ScaledGD's (Wᵀ W)^{-1} would spread them over the condition number.
        """
        identity = np.eye(W.shape[-1])
        epsilon = float(self.smoothing)
        return identity + epsilon * gram_pseudo_inverse(W) if epsilon > 0 else identity

    def right_scaled_gradient(self, F: Array, gradient: Array) -> Array:
        """∇L C with C = `right_scaling`, from F = Ωᵀ W and the gradient there."""
        return gradient @ self.right_scaling(F)

    @abstractmethod
    def value_in_eigenbasis(self, F: Array) -> Array:
        """L from F = Ωᵀ W."""

    @abstractmethod
    def excess_in_eigenbasis(self, F: Array, rank: int) -> Array:
        """L − L* from F = Ωᵀ W."""

    @abstractmethod
    def gradient_in_eigenbasis(self, F: Array) -> Array:
        """Ωᵀ ∇L from F = Ωᵀ W."""

    def gradient_along(self, F: Array, roots: RootPath) -> Array:
        """`gradient_in_eigenbasis` of a stack (B, n, d) that goes on from call to call: a loss may use `roots`."""
        return self.gradient_in_eigenbasis(F)

    def gradient_and_excess_along(self, F: Array, rank: int, roots: RootPath) -> tuple[Array, Array]:
        """Both at once, the gradient bit for bit `gradient_along`: a loss may share a decomposition."""
        return self.gradient_along(F, roots), self.excess_in_eigenbasis(F, rank)

    def gradient_near_diagonal(self, F: Array) -> Array:
        """`gradient_in_eigenbasis` of a stack in which most F Fᵀ are nearly diagonal: a loss may exploit that."""
        return self.gradient_in_eigenbasis(F)

    def gradient_and_excess_near_diagonal(self, F: Array, rank: int) -> tuple[Array, Array]:
        """Both at once, likewise."""
        return self.gradient_in_eigenbasis(F), self.excess_in_eigenbasis(F, rank)

    @abstractmethod
    def hessian_product_in_eigenbasis(self, F: Array, V: Array, rank: int | None = None) -> Array:
        """Ωᵀ ∇²L[Ω V] from F = Ωᵀ W; see `hessian_product`."""

    def hessian_operator_in_eigenbasis(self, F: Array, rank: int | None = None) -> Callable[[Array], Array]:
        """`hessian_operator` from F = Ωᵀ W; a loss with nothing to keep computes each product anew."""
        return lambda V: self.hessian_product_in_eigenbasis(F, V, rank)

    def _to_eigenbasis(self, name: str, W: ArrayLike) -> Array:
        W = finite_array(name, W, 2)
        if W.shape[-2] != self.dimension:
            raise ValueError(f"{name} must have {self.dimension} rows, as many as the covariance, not shape {W.shape}")
        return self._basis.coordinates(W)

    def _lack(self, kept: int, rank: int) -> Array:
        """L* over rank ≤ `kept` minus L* over rank ≤ `rank`, as a sum."""
        more = (self.minimum_spectrum(rank) > 0) & (np.arange(self.dimension) >= kept)
        return np.sum(np.where(more, self.empty_costs(), 0), axis=-1)

    def _checked_rank(self, rank: int | None) -> int:
        rank = self.dimension if rank is None else rank
        if not 1 <= rank <= self.dimension:
            raise ValueError(f"rank must lie between 1 and the dimension {self.dimension}, not {rank}")
        return rank


def pairs(values: Array, columns: NDArray[np.intp] | None) -> tuple[Array, Array]:
    """values_a and values_b, which broadcast to all a and the b in `columns`; values (..., n) or of one target."""
    if columns is None:
        return values[..., :, None], values[..., None, :]
    rows = np.broadcast_to(values, (*columns.shape[:-1], values.shape[-1]))
    return rows[..., :, None], np.take_along_axis(rows, columns, axis=-1)[..., None, :]
