"""A target covariance by its spectrum."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from ..linalg.eigenbasis import DenseBasis, Eigenbasis, eigenbasis
from ..linalg.psd import INPUT_TOLERANCE, Array, check_square_fits, finite_array, spectrum, symmetrize


class Target:
    """Target Σ0 = Ω diag(λ) Ωᵀ, or a stack (...) of targets.

    Parameters
    ----------
    eigenvalues : (..., n)
        λ_1 ≥ … ≥ λ_n ≥ 0.
    basis
        Ω; a dense one for a stack.
    covariance : (..., n, n), optional
        Σ0. By default it is computed when it is first asked for.
    """

    def __init__(self, eigenvalues: Array, basis: Eigenbasis, covariance: Array | None = None) -> None:
        self.eigenvalues, self.basis = eigenvalues, basis
        if covariance is not None:
            self.covariance = covariance

    @classmethod
    def of_covariance(cls, covariance: ArrayLike) -> Self:
        """Decompose Σ0, (..., n, n); ValueError unless it is finite and symmetric positive semidefinite."""
        eigenvalues, eigenvectors = spectrum("covariance", covariance)
        matrix = symmetrize(np.asarray(covariance, dtype=eigenvalues.dtype))
        return cls(eigenvalues, DenseBasis(eigenvectors), matrix)

    @classmethod
    def of_spectrum(cls, eigenvalues: ArrayLike, eigenvectors: ArrayLike | None = None) -> Self:
        """One target from its eigenvalues (r,) and eigenvectors (n, r); see `CovarianceLoss.from_spectrum`."""
        values = finite_array("eigenvalues", eigenvalues, 1)
        tolerance = max(INPUT_TOLERANCE, 10 * float(np.finfo(values.dtype).eps))
        if values.ndim != 1 or np.any(np.diff(values) > 0):
            raise ValueError("eigenvalues must be one falling list λ_1 ≥ … ≥ λ_n, their eigenvectors in the same order")
        if values[-1] < -tolerance * np.abs(values).max():
            raise ValueError(f"eigenvalues must not be negative, but the least is {values[-1]:.6g}")
        basis = eigenbasis(len(values), eigenvectors)
        dimension = len(values) if eigenvectors is None else len(np.asarray(eigenvectors))
        return cls(np.pad(np.maximum(values, 0), (0, dimension - len(values))), basis)

    @classmethod
    def stacked(cls, targets: Sequence[Target]) -> Self:
        """The stack (m,) of m single targets; no spectrum is computed again."""
        eigenvalues, vectors, covariances = (
            np.stack(arrays)
            for arrays in zip(*((one.eigenvalues, one.basis.vectors(), one.covariance) for one in targets), strict=True)
        )
        return cls(eigenvalues, DenseBasis(vectors), covariances)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the stack; () for one target."""
        return self.eigenvalues.shape[:-1]

    @cached_property
    def covariance(self) -> Array:
        """Σ0, (..., n, n)."""
        check_square_fits("covariance", self.eigenvalues.shape[-1])
        vectors = self.basis.vectors()
        return symmetrize((vectors * self.eigenvalues[..., None, :]) @ vectors.mT)

    def take(self, members: ArrayLike) -> Target:
        """The selected members of the flattened stack, by a mask or indices; an integer selects one target."""

        def selected(values: Array) -> Array:
            return values.reshape(-1, *values.shape[len(self.shape) :])[np.asarray(members)]

        covariance = selected(self.covariance) if "covariance" in vars(self) else None
        return Target(selected(self.eigenvalues), DenseBasis(selected(self.basis.vectors())), covariance)
