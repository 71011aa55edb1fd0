"""The Bures-Wasserstein loss on n × n arrays, from roots of M = R (F Fᵀ + εI) R.

Everything is computed in the eigenbasis of the target, where R = diag(√λ). The transport map is T = R M^{-1/2} R.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..linalg.psd import Array, check_square_fits
from ..linalg.root_path import RootPath
from ..linalg.roots import WELL_CONDITIONED, near_diagonal_inverse_root, rank_tolerance, well_conditioned_inverse_root
from ..linalg.stack import take
from . import small_smoothing
from .form import Form, Gradients, Minimum

#: Below this μ_n/μ_1 the spectrum of M comes from singular values: eigh has an absolute error of eps·μ_1, but T needs
#: μ^{-1/2}.
_EIGH_CONDITION = 1e-6
#: With fewer rows the SVD that gives the excess takes less time than the calls that replace it.
_FEWEST_ROWS = 12
#: Above this λ_{k+1}/ε the excess is taken from `small_smoothing`: the form with T* loses a factor √(λ_{k+1}/ε).
_BARELY_SMOOTHED = 1e4


class Dense(Form):
    """ε > 0: the gradient is 2 (F − T F), from the eigendecomposition of M.

    Attributes
    ----------
    root : (..., n, 1)
        The diagonal of R as a column.
    epsilon : (..., 1, 1)
        ε.
    support
        Rank of Σ0: M is regular on the first `support` coordinates.
    mapped
        Whether M is regular, so that T and L − L* may be computed from M^{-1/2} alone, in float64.
    """

    def __init__(self, minimum: Minimum, columns: int, rank: int) -> None:
        super().__init__(minimum, columns, rank)
        self.dimension = minimum.eigenvalues.shape[-1]
        self.root: Array = np.sqrt(minimum.eigenvalues)[..., :, None]
        self.epsilon: Array = np.asarray(minimum.epsilon, dtype=self.root.dtype)[..., None, None]
        # All targets of a stack have one rank.
        self.support = np.count_nonzero(minimum.eigenvalues) * self.dimension // max(minimum.eigenvalues.size, 1)
        self.mapped = self.support == self.dimension and self.root.dtype == np.float64

    def of(self, members: NDArray[np.bool_]) -> Self:
        """The form for the targets of some F of a stack: a mask over its leading axes, which end in the targets'."""
        axes = self.minimum.eigenvalues.ndim - 1
        if axes == 0 or (members.ndim == 1 and members.all()):
            return self
        return type(self)(take(self.minimum, np.nonzero(members)[-axes:]), self.columns, self.rank)

    def near_diagonal(self) -> Gradients:
        """The form in which Newton's method replaces the decomposition of nearly diagonal M."""
        return NearDiagonal(self) if self.mapped else self

    def along(self, roots: RootPath) -> Gradients:
        """The form in which the roots are followed along a path; for a target of full rank."""
        return AlongPath(self, roots) if self.support == self.dimension >= _FEWEST_ROWS else self

    # --- A and M ----------------------------------------------------------------------------------------------------

    def factor(self, F: Array) -> Array:
        """A = [F, √ε I], so that A Aᵀ = F Fᵀ + εI."""
        noise = np.sqrt(self.epsilon) * np.eye(self.dimension, dtype=F.dtype)
        return np.concatenate([F, np.broadcast_to(noise, (*F.shape[:-2], *noise.shape[-2:]))], axis=-1)

    @cached_property
    def root_outer(self) -> Array:
        """√(λ_i λ_j) on the support."""
        check_square_fits("the dense form of the Bures-Wasserstein loss", self.support)
        root = self.root[..., : self.support, :]
        return root * root.mT

    @cached_property
    def shift(self) -> Array:
        """ε diag(λ) on the support."""
        root = self.root[..., : self.support, :]
        return np.eye(self.support, dtype=root.dtype) * (self.epsilon * root**2)

    def product(self, F: Array) -> Array:
        """M = R (F Fᵀ + εI) R on the support."""
        rows = F[..., : self.support, :]
        return self.root_outer * (rows @ rows.mT) + self.shift

    def spectrum(self, F: Array) -> tuple[Array, Array]:
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

    def map_of(self, sigma: Array, Q: Array) -> Array:
        """T = R M^{-1/2} R on the support, for M = Q diag(σ²) Qᵀ."""
        return self.root_outer * ((Q / sigma[..., None, :]) @ Q.mT)

    # --- Value and derivatives --------------------------------------------------------------------------------------

    def value(self, F: Array) -> Array:
        """‖A − R Q‖²_F with the polar factor Q of R A."""
        A = self.factor(F)
        U, _, Vh = np.linalg.svd(self.root * A, full_matrices=False)
        distance: Array = np.sum((A - self.root * (U @ Vh)) ** 2, axis=(-2, -1))
        return distance

    def gradient(self, F: Array) -> Array:
        """2 (F − T F)."""
        gradient = 2 * F
        gradient[..., : self.support, :] -= 2 * (self.map_of(*self.spectrum(F)) @ F[..., : self.support, :])
        return gradient

    def value_and_gradient(self, F: Array) -> tuple[Array, Array]:
        """‖∇L‖²/4 + ε ‖I − T‖² = ‖A − T A‖² and ∇L = 2 (F − T F), from one T: R Q = T A in `value`."""
        T = self.map_of(*self.spectrum(F))
        gradient = 2 * F
        gradient[..., : self.support, :] -= 2 * (T @ F[..., : self.support, :])
        deformed = np.sum((np.eye(self.support, dtype=T.dtype) - T) ** 2, axis=(-2, -1))
        empty = self.dimension - self.support  # directions in which T = 0
        return np.sum(gradient**2, axis=(-2, -1)) / 4 + self.epsilon[..., 0, 0] * (deformed + empty), gradient

    def hessian_operator(self, F: Array) -> Callable[[Array], Array]:
        """V ↦ 2 (I − T) V − 2 R D R F, D = −Q [(Qᵀ E Q)_ij / (√μ_i √μ_j (√μ_i + √μ_j))] Qᵀ, E = R (V Fᵀ + F Vᵀ) R.

        D is the derivative of M^{-1/2} along V, M = Q diag(μ) Qᵀ (paper.md section 2).
        """
        F_ = F[..., : self.support, :]
        sigma, Q = self.spectrum(F)
        T = self.map_of(sigma, Q)
        rows, columns = sigma[..., :, None], sigma[..., None, :]

        def product(V: Array) -> Array:
            V_, result = V[..., : self.support, :], 2 * V
            E = self.root_outer * (V_ @ F_.mT + F_ @ V_.mT)
            inner = Q.mT @ E @ Q / (rows * columns * (rows + columns))
            result[..., : self.support, :] -= 2 * T @ V_
            result[..., : self.support, :] -= 2 * (self.root_outer * (-Q @ inner @ Q.mT)) @ F_
            return result

        return product

    def step(self, F: Array, roots: RootPath) -> tuple[Array, Array, Array]:
        """2 (F − T F), T, and μ_n/μ_1 of M, with M^{-1/2} along a path."""

        def spectrum(members: NDArray[np.bool_]) -> tuple[Array, Array]:
            return self.of(members).spectrum(F[members])

        inverse_root, condition = roots.inverse_root(self.product(F), spectrum)
        T = self.root_outer * inverse_root
        return 2 * (F - T @ F), T, condition

    # --- Excess -----------------------------------------------------------------------------------------------------

    @cached_property
    def optimal_map(self) -> Array:
        """t, the diagonal of T at the minimum: 1 where s*_j > 0, and √(λ_j/ε) elsewhere; (..., n)."""
        return np.where(self.minimum.spectrum > 0, 1.0, np.sqrt(self.minimum.eigenvalues / self.epsilon[..., 0]))

    @cached_property
    def barely_smoothed(self) -> bool:
        """Whether 0 < ε < λ_k and ε ≪ λ_{k+1}, which stays empty: the form with T* loses digits there."""
        minimum, k = self.minimum, self.rank
        if k >= self.dimension or not np.all(minimum.epsilon):
            return False
        small = minimum.eigenvalues[..., k] > _BARELY_SMOOTHED * np.asarray(minimum.epsilon)
        return bool(np.any(small) and np.all(minimum.spectrum[..., k - 1] > 0))

    def excess(self, F: Array) -> Array:
        """L − L*, from M^{-1/2} where M is well conditioned, and else from singular vectors."""
        if self.mapped and self.dimension >= _FEWEST_ROWS and not self.barely_smoothed:
            return NearDiagonal(self).gradient_and_excess(F)[1][()]
        return self.excess_by_svd(F)

    def excess_by_svd(self, F: Array) -> Array:
        """‖T*^{1/2} A − T*^{-1/2} R Q‖² + Σ_j (1 − t_j) S_jj, T* = diag(t) (paper.md section 2).

        The second term is negative where λ_{k+1} > ε, and a factor √(λ_{k+1}/ε) of the accuracy is lost: for barely
        smoothed losses `small_smoothing` takes the place of this form.
        """
        if self.barely_smoothed:
            return self._excess_for_small_smoothing(of_rank(F, self.rank))
        scale = np.sqrt(self.optimal_map)[..., :, None]
        scaled_root = np.divide(self.root, scale, out=np.zeros_like(self.root), where=scale > 0)
        A = self.factor(F)
        U, _, Vh = np.linalg.svd(self.root * A, full_matrices=False)
        distance = np.sum((scale * A - scaled_root * (U @ Vh)) ** 2, axis=(-2, -1))
        return distance + np.sum(np.sum(F**2, axis=-1) * (1 - self.optimal_map), axis=-1)

    def _excess_for_small_smoothing(self, F: Array) -> Array:
        """`small_smoothing.smoothed_excess` of each member of a stack."""
        epsilon, batch = self.minimum.epsilon, np.broadcast_shapes(F.shape[:-2], np.shape(self.minimum.epsilon))
        eigenvalues = np.broadcast_to(self.minimum.eigenvalues, (*batch, self.dimension))
        epsilon, F = np.broadcast_to(epsilon, batch), np.broadcast_to(F, (*batch, *F.shape[-2:]))
        excess = np.empty(batch, dtype=F.dtype)
        for i in np.ndindex(batch):
            excess[i] = small_smoothing.smoothed_excess(eigenvalues[i], float(epsilon[i]), F[i], self.rank)
        return excess[()]

    def excess_by_map(self, F: Array, T: Array, gradient: Array) -> Array:
        """‖D F‖² + ε ‖D‖² + Σ_j (1 − t_j) S_jj, D = T*^{1/2} − T*^{-1/2} T: the excess above, as T R A = R Q.

        Where no direction is empty D = I − T, and the excess is ‖∇L‖²/4 + ε ‖I − T‖².
        """
        if self.barely_smoothed:
            return self.excess_by_svd(F)
        epsilon, identity = self.minimum.epsilon, np.eye(self.dimension)
        if (self.minimum.spectrum > 0).all():
            excess = np.sum(gradient**2, axis=(-2, -1)) / 4
            return np.asarray(excess + epsilon * np.sum((identity - T) ** 2, axis=(-2, -1)))
        root = np.sqrt(self.optimal_map)[..., :, None]
        excess = np.sum((root * F - (F - gradient / 2) / root) ** 2, axis=(-2, -1))
        excess += epsilon * np.sum((root * identity - T / root) ** 2, axis=(-2, -1))
        return np.asarray(excess + np.sum(np.sum(F**2, axis=-1) * (1 - self.optimal_map), axis=-1))

    # --- Transport --------------------------------------------------------------------------------------------------

    def whitened(self, F: Array) -> tuple[Array, Array]:
        """U and σ with M = U diag(σ²) Uᵀ on the support.

        Raises
        ------
        ValueError
            For ε = 0, where F Fᵀ is singular on the range of the target: N(0, S) then has no map to N(0, Σ0).
        """
        A = (self.root * self.factor(F))[..., : self.support, :]
        U, sigma, _ = np.linalg.svd(A, full_matrices=False)
        if sigma.shape[-1] < self.support or np.any(sigma[..., -1:] <= rank_tolerance(A) * sigma[..., :1]):
            raise ValueError("W must have full rank on the range of the target: for ε = 0 a singular one has no map")
        return U, sigma

    def transport(self, F: Array, V: Array) -> Array:
        """T V for a block V (..., n, p)."""
        U, sigma = self.whitened(F)
        root, transported = self.root[..., : self.support, :], np.zeros_like(V)
        transported[..., : self.support, :] = root * (
            (U / sigma[..., None, :]) @ (U.mT @ (root * V[..., : self.support, :]))
        )
        return transported


class NearDiagonal(Gradients):
    """A dense form for nearly diagonal M, with M^{-1/2} by Newton's method where it converges."""

    def __init__(self, exact: Dense) -> None:
        self.exact = exact

    def gradient(self, F: Array) -> Array:
        """2 (F − T F)."""
        inverse_root, near = near_diagonal_inverse_root(self.exact.product(F))
        gradient = 2 * (F - (self.exact.root_outer * inverse_root) @ F)
        if not near.all():
            far = ~near
            gradient[far] = self.exact.of(far).gradient(F[far])
        return gradient

    def gradient_and_excess(self, F: Array) -> tuple[Array, Array]:
        """Both from one M^{-1/2} where M is well conditioned, elsewhere by the exact form."""
        inverse_root, well = well_conditioned_inverse_root(self.exact.product(F))
        T = self.exact.root_outer * inverse_root
        gradient = 2 * (F - T @ F)
        excess = self.exact.excess_by_map(F, T, gradient)
        if not well.all():
            poor = ~well
            exact = self.exact.of(poor)
            gradient[poor], excess[poor] = exact.gradient(F[poor]), exact.excess_by_svd(F[poor])
        return gradient, excess


class AlongPath(Gradients):
    """A dense form for a stack (B, n, d) that changes little from call to call."""

    def __init__(self, exact: Dense, roots: RootPath) -> None:
        self.exact, self.roots = exact, roots

    def gradient(self, F: Array) -> Array:
        """∇L from the root along the path."""
        return self.exact.step(F, self.roots)[0]

    def gradient_and_excess(self, F: Array) -> tuple[Array, Array]:
        """Both from the root along the path where M is well conditioned, elsewhere the excess by singular vectors."""
        if not self.exact.mapped:
            return self.gradient(F), self.exact.excess(F)
        gradient, T, condition = self.exact.step(F, self.roots)
        excess = self.exact.excess_by_map(F, T, gradient)
        poor = ~(condition > WELL_CONDITIONED)
        if poor.any():
            excess[poor] = self.exact.of(poor).excess_by_svd(F[poor])
        return gradient, excess


def of_rank(F: Array, rank: int) -> Array:
    """Factor of the same F Fᵀ with at most `rank` columns, for F of that rank.

    Raises
    ------
    ValueError
        If F has a higher rank.
    """
    if F.shape[-1] <= rank:
        return F
    U, sigma, _ = np.linalg.svd(F, full_matrices=False)
    if rank < sigma.shape[-1] and np.any(sigma[..., rank] > rank_tolerance(F) * sigma[..., 0]):
        raise ValueError(f"W must have rank ≤ {rank} to be compared with the minimum over that rank")
    return (U * sigma[..., None, :])[..., :rank]
