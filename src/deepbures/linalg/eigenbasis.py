"""The eigenbasis Ω of a target as an operator: Ωᵀ W and Ω F, without an n × n array where none is needed."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .psd import INPUT_TOLERANCE, Array, check_square_fits, finite_array

#: Orthonormality is checked on this number of random vectors with this seed, because all products of r vectors cost
#: n r².
_PROBES, _PROBE_SEED = 4, 0


class Eigenbasis(ABC):
    """An orthogonal n × n matrix Ω.

    Attributes
    ----------
    dimension
        n.
    """

    dimension: int

    @abstractmethod
    def coordinates(self, W: Array) -> Array:
        """Ωᵀ W for W of shape (..., n, d)."""

    @abstractmethod
    def combine(self, F: Array) -> Array:
        """Ω F for F of shape (..., n, d)."""

    def vectors(self) -> Array:
        """Ω itself, (..., n, n).

        Raises
        ------
        ValueError
            If it is not stored and would not fit in memory.
        """
        check_square_fits("eigenvectors", self.dimension)
        return self.combine(np.eye(self.dimension))

    def columns(self, indices: NDArray[np.intp]) -> Array:
        """The columns Ω_J of one basis, (n, |J|)."""
        units = np.zeros((self.dimension, len(indices)))
        units[indices, np.arange(len(indices))] = 1
        return self.combine(units)


class DenseBasis(Eigenbasis):
    """Ω stored as an array, or a stack of them, (..., n, n)."""

    def __init__(self, vectors: Array) -> None:
        self._vectors, self.dimension = vectors, vectors.shape[-1]

    def coordinates(self, W: Array) -> Array:
        """Ωᵀ W, in the precision of W."""
        return self._vectors.mT.astype(W.dtype, copy=False) @ W

    def combine(self, F: Array) -> Array:
        """Ω F."""
        return self._vectors @ F

    def vectors(self) -> Array:
        """Ω, without a copy."""
        return self._vectors

    def columns(self, indices: NDArray[np.intp]) -> Array:
        """Ω_J."""
        return self._vectors[:, indices]


class StandardBasis(Eigenbasis):
    """Ω = I: the target is diagonal."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension

    def coordinates(self, W: Array) -> Array:
        """W itself."""
        return W

    def combine(self, F: Array) -> Array:
        """A copy of F."""
        return F.copy()


class CompletedBasis(Eigenbasis):
    """Ω = [Ω_1, Ω_2] from its first r columns; a block reflector gives the n − r others. It stores n r numbers.

    With A σ Bᵀ the SVD of the top block of Ω_1, H = I − K Kᵀ, K = (Ω_1 + [A Bᵀ; 0]) B (I + σ)^{-1/2}, is orthogonal
    and symmetric, and its first r columns are −Ω_1 B Aᵀ (Schreiber and Parlett 1988, SIAM J. Numer. Anal. 25(1)).
    So Ω = H diag(−A Bᵀ, I). No digits are lost: 1 ≤ 1 + σ ≤ 2.

    Parameters
    ----------
    columns : (n, r)
        Ω_1, orthonormal.
    """

    def __init__(self, columns: Array) -> None:
        self.dimension, r = columns.shape
        A, sigma, Bt = np.linalg.svd(columns[:r])
        self._turn = -A @ Bt
        shifted = columns.copy()
        shifted[:r] -= self._turn
        self._reflector = (shifted @ Bt.T) / np.sqrt(1 + sigma)

    def coordinates(self, W: Array) -> Array:
        """Ωᵀ W: the reflection, then the inverse rotation of the first r coordinates."""
        F = self._reflected(W)
        r = len(self._turn)
        F[..., :r, :] = self._turn.T.astype(W.dtype, copy=False) @ F[..., :r, :]
        return F

    def combine(self, F: Array) -> Array:
        """Ω F: the rotation of the first r coordinates, then the reflection."""
        r = len(self._turn)
        turned = F.copy()
        turned[..., :r, :] = self._turn.astype(F.dtype, copy=False) @ F[..., :r, :]
        return self._reflected(turned)

    def _reflected(self, W: Array) -> Array:
        K = self._reflector.astype(W.dtype, copy=False)
        return W - K @ (K.T @ W)


def eigenbasis(dimension: int, eigenvectors: ArrayLike | None) -> Eigenbasis:
    """The basis whose first columns are the given eigenvectors, (n, r); by default the standard basis.

    Raises
    ------
    ValueError
        If there are more columns than rows, or they are not orthonormal to a relative 1e-8.
    """
    if eigenvectors is None:
        return StandardBasis(dimension)
    columns = finite_array("eigenvectors", eigenvectors, 2)
    if columns.ndim != 2 or columns.shape[1] > columns.shape[0] or columns.shape[1] != dimension:
        raise ValueError(
            f"eigenvectors must be one column for each of the {dimension} eigenvalues, not of shape {columns.shape}"
        )
    probe = np.random.default_rng(_PROBE_SEED).standard_normal((columns.shape[1], _PROBES))
    error = float(np.abs(columns.T @ (columns @ probe) - probe).max())
    if error > max(INPUT_TOLERANCE, 10 * float(np.finfo(columns.dtype).eps)) * np.sqrt(dimension) * 10:
        raise ValueError(
            f"eigenvectors must be orthonormal columns, but ΩᵀΩ differs from I: by {error:.3g} on a vector"
        )
    return DenseBasis(columns) if columns.shape[0] == columns.shape[1] else CompletedBasis(columns)
