"""Covariances by their factors: dense ones, and those of low rank plus a floor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..linalg.psd import Array, finite_array, spectrum


class LowRankCovariance:
    """Covariance A = F Fᵀ + σ² I of low rank plus a floor, without an n × n array.

    Parameters
    ----------
    factor : (..., n, k)
        F; leading axes stack covariances.
    floor : (...)
        σ² ≥ 0, the variance in every direction outside the range of F; one number or one for each F.

    Raises
    ------
    ValueError
        On a factor that is not real and finite, on σ² < 0, or where F Fᵀ overflows.
    """

    def __init__(self, factor: ArrayLike, floor: ArrayLike = 0.0) -> None:
        F = _at_most_square(finite_array("factor", factor, 2).astype(float, copy=False))
        self.floor = finite_array("floor", floor, 0).astype(float, copy=False)
        if np.any(self.floor < 0):
            raise ValueError(f"floor must be ≥ 0 (it is σ²), not {self.floor.min():.6g}")
        with np.errstate(over="ignore"):
            if not np.isfinite(np.sum(F**2)):
                raise ValueError(f"factor must have a finite F Fᵀ, but its largest entry is {np.abs(F).max():.3g}")
        batch = _common_shape("factor", F.shape[:-2], "floor", self.floor.shape)
        self.factor = np.broadcast_to(F, (*batch, *F.shape[-2:]))
        self.floor = np.broadcast_to(self.floor, batch)

    @property
    def dimension(self) -> int:
        """n."""
        return int(self.factor.shape[-2])

    def __repr__(self) -> str:
        """Shape and floor in a line."""
        return f"LowRankCovariance(factor of shape {self.factor.shape}, floor={self.floor!s})"


def sample_moments(X: ArrayLike, *, ddof: int = 0) -> tuple[Array, LowRankCovariance]:
    """Mean and covariance of samples, the covariance as a factor: with m < n samples no n × n array is made.

    x̄ = Σ_i x_i / m and F Fᵀ = Σ_i (x_i − x̄)(x_i − x̄)ᵀ / (m − ddof), in float64.

    Parameters
    ----------
    X : (..., m, n)
        One sample per row.
    ddof
        0 for the mean of the squares, 1 for the unbiased estimate (the default of numpy.cov).

    Returns
    -------
    mean : (..., n)
    covariance
        With a factor of min(m, n) columns.

    Raises
    ------
    ValueError
        On samples that are not finite, or not more than `ddof` of them.
    """
    samples = finite_array("samples", X, 2).astype(float, copy=False)
    m = samples.shape[-2]
    if m <= ddof:
        raise ValueError(f"samples must have more than ddof = {ddof} rows, one each, not shape {samples.shape}")
    mean = samples.mean(axis=-2)
    return mean, LowRankCovariance((samples - mean[..., None, :]).mT / np.sqrt(m - ddof))


@dataclass(frozen=True)
class Pair:
    """Two covariances of one dimension n by factors on a common subspace, the range of Z.

    A = Z F Fᵀ Zᵀ + σ² (I − Z Zᵀ) and B = Z G Gᵀ Zᵀ + τ² (I − Z Zᵀ).

    Attributes
    ----------
    F, G : (..., r, c)
    basis : (..., n, r)
        Z, orthonormal columns; None for Z = I, r = n.
    sigma, tau : (...)
    dimension
        n.
    """

    F: Array
    G: Array
    basis: Array | None
    sigma: Array
    tau: Array
    dimension: int

    @property
    def outside(self) -> int:
        """n − r, the dimension of the complement, on which both are multiples of I."""
        return self.dimension - int(self.F.shape[-2])

    def embedded(self, inner: Array, outer: Array) -> Array:
        """Z X Zᵀ + c (I − Z Zᵀ) for X (..., r, r) and c (...), exactly symmetric for a symmetric X: (..., n, n)."""
        if self.basis is None:
            return inner
        Z = self.basis
        complement = np.eye(self.dimension) - Z @ Z.mT
        full = Z @ inner @ Z.mT + outer[..., None, None] * complement
        return (full + full.mT) / 2


def factor_pair(A: ArrayLike | LowRankCovariance, B: ArrayLike | LowRankCovariance) -> Pair:
    """Factors of A and B, which share their leading axes; ValueError where they do not fit, or are no covariances."""
    first, second = _factored("A", A), _factored("B", B)
    n = first.dimension
    if second.dimension != n:
        raise ValueError(f"A and B must have one dimension, not {n} and {second.dimension}")
    batch = _common_shape("A", first.floor.shape, "B", second.floor.shape)
    F, G = (np.broadcast_to(x.factor, (*batch, *x.factor.shape[-2:])) for x in (first, second))
    sigma, tau = (np.sqrt(np.broadcast_to(x.floor, batch)) for x in (first, second))
    basis = None
    if sigma.any() or tau.any():
        columns = F.shape[-1]
        if columns + G.shape[-1] < n:
            basis, coordinates = np.linalg.qr(np.concatenate([F, G], axis=-1))
            F, G = coordinates[..., :columns], coordinates[..., columns:]
        F, G = _raised(F, sigma), _raised(G, tau)
    columns = max(F.shape[-1], G.shape[-1])
    return Pair(_padded(F, columns), _padded(G, columns), basis, sigma, tau, n)


def _factored(name: str, covariance: ArrayLike | LowRankCovariance) -> LowRankCovariance:
    """A covariance by a factor; a dense one by Ω √λ, decomposed in float64, whatever its own precision is."""
    if isinstance(covariance, LowRankCovariance):
        return covariance
    if np.iscomplexobj(covariance):
        raise ValueError(
            f"{name} must hold real numbers; a Hermitian H can be given as the real matrix "
            "[[Re H, −Im H], [Im H, Re H]] of twice the size, which doubles squared distances"
        )
    eigenvalues, eigenvectors = spectrum(name, covariance, dtype=float)
    return LowRankCovariance(eigenvectors * np.sqrt(eigenvalues)[..., None, :])


def _common_shape(one: str, shape: tuple[int, ...], other: str, other_shape: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(shape, other_shape)
    except ValueError:
        raise ValueError(f"stacks must fit, but {one} has the shape {shape} and {other} {other_shape}") from None


def _at_most_square(F: Array) -> Array:
    """A factor of the same F Fᵀ with at most n columns, from the QR factors of Fᵀ."""
    return np.asarray(np.linalg.qr(F.mT, mode="r")).mT if F.shape[-1] > F.shape[-2] else F


def _raised(F: Array, sigma: Array) -> Array:
    """Factor U diag(√(s² + σ²)) of F Fᵀ + σ² I, for F = U diag(s) Vᵀ (..., r, c)."""
    if not sigma.any():
        return F
    rows, columns = F.shape[-2:]
    U, s, _ = np.linalg.svd(F, full_matrices=columns < rows)
    s = np.concatenate([s, np.zeros((*s.shape[:-1], rows - s.shape[-1]))], axis=-1)
    return U * np.hypot(s, sigma[..., None])[..., None, :]


def _padded(F: Array, columns: int) -> Array:
    """F with columns of zeros appended."""
    return np.concatenate([F, np.zeros((*F.shape[:-1], columns - F.shape[-1]))], axis=-1)
