"""The forms of the Bures-Wasserstein loss on n × n arrays: what they share, and how they use roots found by iteration.

All work in the eigenbasis of the target, where R = diag(√λ), with M = R (F Fᵀ + εI) R and T = R M^{-1/2} R.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..linalg.psd import Array, check_square_fits
from ..linalg.root_path import RootPath
from ..linalg.roots import WELL_CONDITIONED, near_diagonal_inverse_root, rank_tolerance, well_conditioned_inverse_root
from ..linalg.stack import take
from .form import Form, Gradients, Minimum

#: With fewer rows the SVD that gives the excess takes less time than the calls that replace it.
FEWEST_ROWS = 12


class Dense(Form):
    """A form on n × n arrays.

    Parameters
    ----------
    minimum
        Spectra of the targets, ε, and the minimum over rank ≤ k.
    columns, rank
        d and k.

    Attributes
    ----------
    root : (..., n, 1)
        The diagonal of R as a column.
    support
        Rank of Σ0: M is regular on the first `support` coordinates.
    mapped
        Whether M is regular for F of rank k, so that T and L − L* may be computed from M^{-1/2} alone, in float64.
    """

    def __init__(self, minimum: Minimum, columns: int, rank: int) -> None:
        self.minimum, self.columns, self.rank = minimum, columns, rank
        self.dimension = minimum.eigenvalues.shape[-1]
        self.root: Array = np.sqrt(minimum.eigenvalues)[..., :, None]
        self.support = int(np.max(np.sum(minimum.eigenvalues > 0, axis=-1)))
        self.mapped = self.support == self.dimension and self.root.dtype == np.float64

    def of(self, members: NDArray[np.bool_]) -> Self:
        """The form for the targets of some F of a stack: a mask over its leading axes, which end in the targets'."""
        axes = self.minimum.eigenvalues.ndim - 1
        if axes == 0:
            return self
        return type(self)(take(self.minimum, np.nonzero(members)[-axes:]), self.columns, self.rank)

    @cached_property
    def root_outer(self) -> Array:
        """√(λ_i λ_j) on the support."""
        check_square_fits("the dense form of the Bures-Wasserstein loss", self.support)
        root = self.root[..., : self.support, :]
        return root * root.mT

    @abstractmethod
    def factor(self, F: Array) -> Array:
        """A with A Aᵀ = F Fᵀ + εI."""

    @abstractmethod
    def product(self, F: Array) -> Array:
        """M on the support."""

    @abstractmethod
    def excess_by_svd(self, F: Array) -> Array:
        """L − L* from the singular vectors of R A, whatever the condition of M."""

    @abstractmethod
    def excess_by_map(self, F: Array, T: Array, gradient: Array) -> Array:
        """L − L* from the transport map of a well-conditioned M and the gradient."""

    @abstractmethod
    def step(self, F: Array, roots: RootPath) -> tuple[Array, Array, Array]:
        """Gradient, T, and the reciprocal condition number of the inverted matrix, with the root along a path.

        For ε = 0 the polar factors of R F take the place of T.
        """

    def excess(self, F: Array) -> Array:
        """L − L*, from M^{-1/2} where M is well conditioned, and else from singular vectors."""
        if self.mapped and self.dimension >= FEWEST_ROWS:
            return NearDiagonal(self).gradient_and_excess(F)[1][()]
        return self.excess_by_svd(F)

    def near_diagonal(self) -> Gradients:
        """The form in which Newton's method replaces the decomposition of nearly diagonal M."""
        return NearDiagonal(self) if self.mapped else self

    def along(self, roots: RootPath) -> Gradients:
        """The form in which the roots are followed along a path; of a regular target."""
        return AlongPath(self, roots) if self.support == self.dimension >= FEWEST_ROWS else self

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
        half = self.root[..., : self.support, :] * U / np.sqrt(sigma)[..., None, :]
        transported = np.zeros(np.broadcast_shapes(V.shape, (*half.shape[:-2], 1, 1)), dtype=half.dtype)
        transported[..., : self.support, :] = half @ (half.mT @ V[..., : self.support, :])
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
            gradient[~near] = self.exact.of(~near).gradient(F[~near])
        return gradient

    def gradient_and_excess(self, F: Array) -> tuple[Array, Array]:
        """Both from one M^{-1/2} where M is well conditioned, elsewhere by the exact form."""
        inverse_root, well = well_conditioned_inverse_root(self.exact.product(F))
        T = self.exact.root_outer * inverse_root
        gradient = 2 * (F - T @ F)
        excess = self.exact.excess_by_map(F, T, gradient)
        if not well.all():
            poor, exact = F[~well], self.exact.of(~well)
            gradient[~well], excess[~well] = exact.gradient(poor), exact.excess_by_svd(poor)
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
