"""What all losses on the end-to-end matrix have in common; to add one, see `CovarianceLoss` and `losses.LOSSES`.

A loss depends on a matrix W only through S = W Wᵀ. It is evaluated in the eigenbasis Ω of the target
Σ0 = Ω diag(λ) Ωᵀ, at F = Ωᵀ W: there the target and its root R = Σ0^{1/2} are diagonal, and products with R are
scalings of rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..linalg.psd import Array, check_square_fits, finite_array, symmetrize
from ..linalg.sample_covariance import sample_spectrum
from .form import Form, Minimum
from .target import Target


class CovarianceLoss(ABC):
    """A loss L(W) = ℓ(W Wᵀ) that compares the generated covariance S = W Wᵀ with a target.

    A loss defines `name`, `degree`, `label`, `minimum_spectrum`, `empty_costs` and `make_form`. It may define further
    methods and attributes, such as rates in closed form; by their defaults these are unknown.

    Parameters
    ----------
    covariance : (..., n, n) or Target
        Target Σ0, symmetric positive semidefinite; or a stack of targets; or a `Target`, which is decomposed already.

    Notes
    -----
    Every method takes stacks: W of shape (..., n, d), for any d ≥ 1. With a stack of targets the leading axes of W end
    in those of the stack, each matrix is compared with its own target, and a number for one target becomes an array of
    the shape of the stack.

    For other targets, for example some members of a stack, the loss is constructed anew by `on`. So `__init__` may
    compute attributes from the target. A loss with further parameters of `__init__` defines `on`, too.
    """

    #: Name in configurations and tables.
    name: str
    #: d, with L(c W; c² Σ0, c² ε) = c^d L(W; Σ0, ε): the loss has the unit of λ_1^{d/2}.
    degree: int
    #: Name in figures and printed tables.
    label: str
    #: ε, one number or an array of the shape of the stack of targets.
    epsilon: float | Array = 0.0
    #: Whether ε > 0 is allowed, see `with_epsilon`.
    has_epsilon: bool = False
    #: Whether the loss has no second derivatives where W Wᵀ is singular, in directions that increase its rank.
    has_kink: bool = False
    #: Whether `multiplier` and `curvature` are known. The flow is then integrated by collocation.
    has_linear_part: bool = False
    #: Whether L(W) is the squared Bures distance of S + εI from Σ0. The constants of the authors' program, the times of
    #: aligned starts and the sampling errors, which `rates` gives in terms of λ and ε, then apply to the loss.
    is_bures_distance: bool = False
    #: Further arguments of `__init__`, numbers, each with its bounds in the words of `cell.records`. They are keys of
    #: `loss_options` in configurations.
    options: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(self, covariance: ArrayLike | Target) -> None:
        self.target = covariance if isinstance(covariance, Target) else Target.of_covariance(covariance)
        self._forms: dict[tuple[int, int | None], Form] = {}

    def __repr__(self) -> str:
        """One line: dimension, the largest and the least eigenvalue, ε, and the stack if it is one."""
        stack = f"stack of {self.shape} targets, " if self.shape else ""
        largest, least = self.eigenvalues[..., 0].max(), self.eigenvalues[..., -1].min()
        smoothing = f", ε = {np.max(self.epsilon):.4g}" if self.has_epsilon else ""
        return f"<{type(self).__name__}: {stack}n = {self.dimension}, λ from {largest:.4g} to {least:.4g}{smoothing}>"

    # --- Targets ----------------------------------------------------------------------------------------------------

    @classmethod
    def from_spectrum(
        cls, eigenvalues: ArrayLike, eigenvectors: ArrayLike | None = None, *args: Any, **more: Any
    ) -> Self:
        """Loss on the target Ω diag(λ) Ωᵀ, which is never formed.

        Parameters
        ----------
        eigenvalues : (r,)
            λ_1 ≥ … ≥ λ_r ≥ 0. Negative values within rounding (a relative 1e-8) become 0.
        eigenvectors : (n, r), optional
            Orthonormal columns, n ≥ r; the other n − r eigenvalues are 0. By default the target is diagonal, n = r.
        *args, **more
            Further arguments of the loss, such as ε.

        Raises
        ------
        ValueError
            On eigenvalues that are negative or increase, or eigenvectors that do not fit or are not orthonormal.
        """
        return cls(Target.of_spectrum(eigenvalues, eigenvectors), *args, **more)

    @classmethod
    def from_samples(cls, X: ArrayLike, *args: Any, **more: Any) -> Self:
        """Loss on the covariance of samples, the mean of (x − x̄)(x − x̄)ᵀ, x̄ their mean.

        The spectrum comes from a thin SVD of the m samples: with m < n no n × n array is made, and the rank of the
        target is below m.

        Parameters
        ----------
        X : (m, n)
            One sample per row, m ≥ 2. Singular values below max(m, n) · eps · σ_1 count as zero.
        *args, **more
            Further arguments of the loss, such as ε.

        Raises
        ------
        ValueError
            On fewer samples, entries that are not finite, or samples that are all the same.
        """
        return cls.from_spectrum(*sample_spectrum(X), *args, **more)

    @classmethod
    def stacked(cls, losses: Sequence[Self]) -> Self:
        """One loss on the stack of the single targets of m losses of this type, each with its ε."""
        return losses[0].on(
            Target.stacked([loss.target for loss in losses]), np.array([loss.epsilon for loss in losses])
        )

    def on(self, target: Target, epsilon: ArrayLike) -> Self:
        """The loss on another target, with ε where it has one and with its other parameters unchanged."""
        return type(self)(target)

    def with_epsilon(self, epsilon: ArrayLike) -> Self:
        """The loss on the same target with another ε; the spectrum is not computed again.

        Raises
        ------
        ValueError
            On ε ≠ 0 for a loss without ε.
        """
        if not self.has_epsilon and np.any(np.asarray(epsilon) != 0):
            raise ValueError(f"epsilon must be 0: the loss {self.name!r} has no epsilon, not {epsilon!r}")
        return self.on(self.target, epsilon)

    def normalized(self) -> Self:
        """The loss of Σ0/λ_1 and ε/λ_1, one target: its matrices, losses and gradients have no unit.

        L(W) = λ_1^{d/2} L̃(W/√λ_1) and ∇L(W) = λ_1^{(d−1)/2} ∇L̃(W/√λ_1), d the `degree` of the loss.
        """
        largest = float(self.eigenvalues[0])
        return self.on(Target.of_covariance(self.covariance / largest), self.epsilon / largest)

    def take(self, members: ArrayLike) -> Self:
        """Loss on selected members of the flattened stack of targets; an integer selects one target.

        A loss on one target returns itself.
        """
        if self.shape == ():
            return self
        epsilon = np.broadcast_to(self.epsilon, self.shape).reshape(-1)[np.asarray(members)]
        return self.on(self.target.take(members), epsilon)

    @property
    def eigenvalues(self) -> Array:
        """λ_1 ≥ … ≥ λ_n of Σ0, (..., n)."""
        return self.target.eigenvalues

    @property
    def eigenvectors(self) -> Array:
        """Ω, one eigenvector per column, (..., n, n)."""
        return self.target.basis.vectors()

    @property
    def covariance(self) -> Array:
        """Σ0, (..., n, n)."""
        return self.target.covariance

    @property
    def dimension(self) -> int:
        """n, the dimension of the data."""
        return self.eigenvalues.shape[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the stack of targets; () for one target."""
        return self.target.shape

    @property
    def unit(self) -> float:
        """Σ_j λ_j^{d/2}, the loss of W = 0 for ε = 0: tr Σ0 or ‖Σ0‖²_F; of one target."""
        return float(np.sum(self.eigenvalues ** (self.degree / 2)))

    def to_eigenbasis(self, W: ArrayLike, name: str = "W") -> Array:
        """F = Ωᵀ W, (..., n, d); `name` is the name of W in error messages."""
        W = finite_array(name, W, 2)
        if W.shape[-2] != self.dimension:
            raise ValueError(f"{name} must have {self.dimension} rows, as many as the covariance, not shape {W.shape}")
        return self.target.basis.coordinates(W)

    def from_eigenbasis(self, F: Array) -> Array:
        """W = Ω F, (..., n, d)."""
        return self.target.basis.combine(F)

    def eigenvector_columns(self, indices: ArrayLike) -> Array:
        """Ω_J, the eigenvectors of the given indices, (n, |J|); of one target."""
        return self.target.basis.columns(np.asarray(indices, dtype=np.intp))

    # --- Values and derivatives -------------------------------------------------------------------------------------

    @abstractmethod
    def make_form(self, columns: int, rank: int) -> Form:
        """The `form` for n × d matrices of rank ≤ `rank`, d = `columns`."""

    def form(self, columns: int, rank: int | None = None) -> Form:
        """The computation of this loss for n × d matrices, made once for a shape.

        Parameters
        ----------
        columns
            d.
        rank
            k, a bound on the rank of the matrices. L − L* refers to the minimum over rank ≤ k, and Hessians to matrices
            of rank k exactly. Default min(n, d).
        """
        key = columns, rank
        if key not in self._forms:
            self._forms[key] = self.make_form(columns, min(self.dimension, columns) if rank is None else rank)
        return self._forms[key]

    def value(self, W: ArrayLike) -> Array:
        """L(W): shape (...) for W of shape (..., n, d)."""
        F = self.to_eigenbasis(W)
        return self.form(F.shape[-1]).value(F)

    def excess(self, W: ArrayLike, rank: int | None = None) -> Array:
        """L(W) − L*, (...), for W of rank ≤ `rank`, with L* the minimum over matrices of that rank; default n.

        It is computed as a sum of squares. A difference of traces would drown in rounding errors near 1e-14. The
        relative error is at most about 24 eps √(λ_1/(L − L*)), which the rounding of W and of λ causes.
        """
        F = self.to_eigenbasis(W)
        return self.form(F.shape[-1], self._checked_rank(rank)).excess(F)

    def gradient(self, W: ArrayLike) -> Array:
        """∇L(W), shape of W."""
        F = self.to_eigenbasis(W)
        return self.from_eigenbasis(self.form(F.shape[-1]).gradient(F))

    def value_and_gradient(self, W: ArrayLike) -> tuple[Array, Array]:
        """L(W) and ∇L(W), as `value` and `gradient` up to rounding, at about the cost of the gradient alone."""
        F = self.to_eigenbasis(W)
        value, gradient = self.form(F.shape[-1]).value_and_gradient(F)
        return value, self.from_eigenbasis(gradient)

    def hessian_product(self, W: ArrayLike, V: ArrayLike, rank: int | None = None) -> Array:
        """∇²L(W)[V], the derivative of the gradient along V, shape of V.

        Parameters
        ----------
        W : (..., n, d)
        V : (..., n, d)
            One direction for each W; or a stack of directions for one W.
        rank
            Rank of W, default min(n, d). It matters only for the Bures-Wasserstein loss with ε = 0. Below full rank
            that loss has second derivatives only within the matrices of one rank, so V must be tangent to them:
            (I − U Uᵀ) V (I − Y Yᵀ) = 0 for W = U σ Yᵀ.

        Raises
        ------
        ValueError
            If the shapes do not fit, or where there is no second derivative.
        """
        F, E = self.to_eigenbasis(W), self.to_eigenbasis(V, "V")
        if F.shape[-2:] != E.shape[-2:] or np.broadcast_shapes(F.shape, E.shape) != E.shape:
            raise ValueError(f"V must have the shape of W, {F.shape}, not {E.shape}")
        return self.from_eigenbasis(self.form(F.shape[-1], rank).hessian_product(F, E))

    def hessian_operator(self, W: ArrayLike, rank: int | None = None) -> Callable[[ArrayLike], Array]:
        """V ↦ ∇²L(W)[V], with everything that depends on W alone computed once; see `hessian_product`."""
        F = self.to_eigenbasis(W)
        product = self.form(F.shape[-1], rank).hessian_operator(F)
        return lambda V: self.from_eigenbasis(product(self.to_eigenbasis(V, "V")))

    # --- The minimum ------------------------------------------------------------------------------------------------

    @abstractmethod
    def minimum_spectrum(self, rank: int) -> Array:
        """Eigenvalues s*_1 ≥ … ≥ s*_n of the minimiser over rank ≤ `rank`, shape (..., n)."""

    @abstractmethod
    def empty_costs(self) -> Array:
        """Loss that each direction Ω_j adds to a critical point that leaves it empty, shape (..., n)."""

    def minimum(self, rank: int | None = None) -> tuple[Array, Array]:
        """Minimiser S* = Ω diag(s*) Ωᵀ over covariances of rank ≤ `rank` (default n), and its loss L*.

        It retains the k largest eigenvalues, as in Eckart-Young: s*_j = (λ_j − ε)_+ for the Bures-Wasserstein loss, λ_j
        for the square loss, j ≤ k (paper.md section 3).
        """
        rank = self._checked_rank(rank)
        check_square_fits("the minimiser S*", self.dimension)
        vectors = self.eigenvectors
        covariance = (vectors * self.minimum_spectrum(rank)[..., None, :]) @ vectors.mT
        return symmetrize(covariance), self.minimum_value(rank)

    def minimum_factor(self, rank: int) -> Array:
        """Minimiser W* = Ω_1 diag(√s*) over matrices of rank ≤ k, (n, k), without S* = W* W*ᵀ; of one target."""
        kept = np.arange(self._checked_rank(rank))
        return self.eigenvector_columns(kept) * np.sqrt(self.minimum_spectrum(rank)[kept])

    def minimum_value(self, rank: int) -> Array:
        """L*, the minimum over rank ≤ `rank`: the sum of the costs of the empty directions, shape (...)."""
        return self.minimum_over(rank).value

    def minimum_over(self, rank: int) -> Minimum:
        """Spectra of the target and of the minimiser over rank ≤ `rank`, and the costs of empty directions."""
        return Minimum(self.eigenvalues, self.epsilon, self.minimum_spectrum(rank), self.empty_costs())

    def saddle_values(self, rank: int) -> Array:
        """Loss at the critical points that retain the i largest eigenvalues, i = 0..rank, (..., rank + 1)."""
        costs = self.empty_costs()
        gained = np.where(self.minimum_spectrum(self.dimension) > 0, costs, 0)  # the others stay empty
        gained = np.concatenate([np.zeros((*self.shape, 1)), gained[..., :rank]], axis=-1)
        return costs.sum(axis=-1, keepdims=True) - np.cumsum(gained, axis=-1)

    # --- Closed forms -----------------------------------------------------------------------------------------------

    def local_rates(self, depth: int, kept: ArrayLike) -> tuple[Array, Array] | None:
        """In-block and off-block rates of the reduced flow of N layers at W_J, for one target; None where unknown.

        Parameters
        ----------
        depth
            N.
        kept
            J, indices of the retained directions, from 0.

        Returns
        -------
        in_block : (|J| (|J|+1)/2,)
        off_block : (|J| (n−|J|),)
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

    def excess_by_direction(self, W: ArrayLike, rank: int) -> tuple[Array, Array] | None:
        """L − L* near the minimum of rank k, split among the directions of `local_rates`; None where unknown."""
        return None

    def level_of_empty_columns(self, W: ArrayLike) -> float | None:
        """Most negative curvature at W (n, d) along an empty column, for one layer; None where unknown."""
        return None

    def hessian_bounds(self) -> tuple[float, float] | None:
        """Numbers between which all eigenvalues of ∇²L(W) lie, at every W, for one target; None where unknown."""
        return None

    def batch_bias(self, fluctuation: Array) -> Array | None:
        """s − s* to first order in Var Σ̂, (n,), k = n, where ∇L has the mean 0 over random targets Σ̂ around Σ0.

        `fluctuation` holds Var Σ̂_ij in the eigenbasis of Σ0, (n, n). None where it is unknown.
        """
        return None

    def least_excess(self, squared_gradient: float) -> float:
        """A lower bound on L − L* from ‖∇L‖²; 0 where none is known."""
        return 0.0

    def scaled_gradients(self, F: Array, gradient: Array) -> list[Array]:
        """Directions that scaled descent tries at F = Ωᵀ W (n, d), from Ωᵀ ∇L(W); the gradient where none is known."""
        return [gradient]

    def multiplier(self, spectrum: Array) -> Array:
        """b with ∇L = diag(b) F at S = F Fᵀ = diag(s), s ≥ 0; b and s (..., n), in the eigenbasis (paper.md section 4).

        Raises
        ------
        ValueError
            For a loss without `has_linear_part`.
        """
        raise ValueError(f"the loss {self.name!r} has no linear part in closed form (has_linear_part)")

    def curvature(self, spectrum: Array, columns: NDArray[np.intp] | None = None) -> Array:
        """Q with d(B S + S B)_ab = Q_ab dS_ab at S = diag(s), where ∇L = B(S) F (paper.md section 4).

        Parameters
        ----------
        spectrum : (..., n)
            s ≥ 0.
        columns : (..., k), optional
            The indices b that are needed, for each member; default all.

        Returns
        -------
        curvature : (..., n, n) or (..., n, k)

        Raises
        ------
        ValueError
            For a loss without `has_linear_part`.
        """
        raise ValueError(f"the loss {self.name!r} has no linear part in closed form (has_linear_part)")

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


def check_loss(loss: object) -> None:
    """Raise ValueError, in one line, unless `loss` is an instance of a loss: a class has no target yet."""
    if not isinstance(loss, CovarianceLoss):
        what = f"the class {loss.__name__}" if isinstance(loss, type) else f"a {type(loss).__name__}"
        raise ValueError(f"loss must be a loss on a target, such as BuresWasserstein(covariance), not {what}")
