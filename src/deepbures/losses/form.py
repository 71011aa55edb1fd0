"""How a loss is computed: the interface between a loss and its numerical forms."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..linalg.psd import Array
from ..linalg.root_path import RootPath


@dataclass(frozen=True)
class Minimum:
    """Minimum of a loss over the matrices of rank ≤ k, for one target or a stack (...) of targets.

    Attributes
    ----------
    eigenvalues : (..., n)
        λ_1 ≥ … ≥ λ_n of the target.
    epsilon : (...)
        ε.
    spectrum : (..., n)
        Eigenvalues s* of the minimiser, which vanish for j > k.
    costs : (..., n)
        Loss that each empty direction adds (paper.md section 3).
    """

    eigenvalues: Array
    epsilon: float | Array
    spectrum: Array
    costs: Array

    @property
    def value(self) -> Array:
        """L*, the sum of the costs of the directions that the minimiser leaves empty, (...)."""
        return np.sum(np.where(self.spectrum > 0, 0, self.costs), axis=-1)

    def lack(self, columns: int) -> Array:
        """Minimum over rank ≤ `columns` minus the minimum over rank ≤ k, as a sum; 0 for columns ≥ k."""
        more = (self.spectrum > 0) & (np.arange(self.spectrum.shape[-1]) >= columns)
        return np.sum(np.where(more, self.costs, 0), axis=-1)


class Gradients(ABC):
    """∇L in the eigenbasis Ω of the target, at matrices F = Ωᵀ W of one shape."""

    @abstractmethod
    def gradient(self, F: Array) -> Array:
        """Ωᵀ ∇L(W) for F = Ωᵀ W of shape (..., n, d)."""

    @abstractmethod
    def gradient_and_excess(self, F: Array) -> tuple[Array, Array]:
        """Ωᵀ ∇L(W), bitwise equal to `gradient` in exact and path forms, and L(W) − L*, (...)."""


class Form(Gradients):
    """Computation of a loss for matrices F = Ωᵀ W with n rows and d columns, of rank ≤ k, see `CovarianceLoss.form`.

    F has the shape (..., n, d). With a stack of targets its leading axes end in those of the stack.

    Parameters
    ----------
    minimum
        Spectra of the target and of the minimiser over rank ≤ k, ε, and the costs of empty directions.
    columns, rank
        d and k.
    """

    def __init__(self, minimum: Minimum, columns: int, rank: int) -> None:
        self.minimum, self.columns, self.rank = minimum, columns, rank

    @abstractmethod
    def value(self, F: Array) -> Array:
        """L(W), (...)."""

    def value_and_gradient(self, F: Array) -> tuple[Array, Array]:
        """L(W) and Ωᵀ ∇L(W). A form may compute both from one decomposition."""
        return self.value(F), self.gradient(F)

    @abstractmethod
    def excess(self, F: Array) -> Array:
        """L(W) − L*, (...), L* the minimum over rank ≤ k, as a sum of squares."""

    def gradient_and_excess(self, F: Array) -> tuple[Array, Array]:
        """Ωᵀ ∇L(W) and L(W) − L*. A form may compute both from one decomposition."""
        return self.gradient(F), self.excess(F)

    @abstractmethod
    def hessian_operator(self, F: Array) -> Callable[[Array], Array]:
        """V ↦ Ωᵀ ∇²L(W)[Ω V], with everything that depends on F computed once."""

    def hessian_product(self, F: Array, V: Array) -> Array:
        """Ωᵀ ∇²L(W)[Ω V] for a single use of F."""
        return self.hessian_operator(F)(V)

    def to_accuracy(self, accuracy: float) -> "Form":
        """A form in which T may have this relative error if that takes less time; by default this form."""
        return self

    def near_diagonal(self) -> Gradients:
        """A form for stacks in which most of the matrices F Fᵀ are nearly diagonal; by default this form."""
        return self

    def along(self, roots: RootPath) -> Gradients:
        """A form for a stack (B, n, d) that changes little from call to call; by default this form.

        Parameters
        ----------
        roots
            State of the path, see `RootPath`.
        """
        return self
