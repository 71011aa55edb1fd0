"""Semi-random sensing: a covariance of rank k from quadratic measurements, some of them repeated by an adversary.

b_i = a_iᵀ Σ* a_i, i = 1..m, with Gaussian a_i determine Σ*. In the semi-random model (Cheng and Ge 2018 for matrix
completion; Gao and Cheng 2023 for sensing) an adversary adds further measurements, all of them true. A method
that chooses the weights of the measurements is not harmed, but descent on the plain sum is, because they distort its
curvature (docs/neighbours/semi_random_sensing.md). Here the first measurement is repeated, so that it counts
c_1 = 1 + copies times.

- the square loss Σ c_i (‖Wᵀ a_i‖² − b_i)², and the sliced Bures-Wasserstein loss Σ c_i (‖Wᵀ a_i‖ − √b_i)²: the distance
  between the Gaussians N(0, W Wᵀ) and N(0, Σ*) along each a_i; the full distance would need all of Σ*;
- `reweighted`: in each step the weights w ≥ 0 with Σ w_i r_i² = 1, r_i = a_iᵀ X a_i − b_i, for which
  G = Σ w_i r_i a_i a_iᵀ is shortest, and the step X ← P_k(X − G/‖G‖²). As ⟨G, X − Σ*⟩ = 1 whatever the weights, the
  step before P_k is the projection onto a half-space that contains Σ*: the longest step that cannot go too far.

This is a simplification of Gao and Cheng, of whose paper we read the abstract and recall the rest: they allow any
sensing matrices of which a part has the restricted isometry property, find weights with an approximate oracle in nearly
linear time, and halve the error in stages, given a known bound on it. Here the matrices are a_i a_iᵀ, the
weights solve one non-negative least-squares problem, there are no stages, and P_k projects onto the positive
semidefinite matrices of rank ≤ k, a rank that falls to k over the first steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..linalg.psd import Array, finite_array, symmetrize

#: Number of steps in which the rank that `reweighted` projects onto falls from n to k.
RELAXED = 200
#: Sufficient decrease of the loss in a step of descent, in units of η ‖∇‖².
_ARMIJO = 0.5


@dataclass(frozen=True, eq=False)
class Measurements:
    """Quadratic measurements b_i = a_iᵀ Σ* a_i.

    Attributes
    ----------
    vectors : (m, n)
        a_i, one per row.
    values : (m,)
        b_i ≥ 0.
    counts : (m,)
        c_i > 0, the number of times that each occurs.
    """

    vectors: Array
    values: Array
    counts: Array

    def __post_init__(self) -> None:
        """Check the shapes and signs."""
        a, b, c = (
            finite_array(name, getattr(self, name), axes).astype(float)
            for name, axes in (("vectors", 2), ("values", 1), ("counts", 1))
        )
        if a.ndim != 2 or b.shape != (len(a),) or c.shape != (len(a),):
            raise ValueError(
                "vectors, values and counts must be of shapes (m, n), (m,) and (m,), "
                f"not {a.shape}, {b.shape}, {c.shape}"
            )
        if not (b >= 0).all() or not b.any():
            raise ValueError("values must not be negative, nor all zero: they are variances")
        if not (c > 0).all():
            raise ValueError(f"counts must be positive, not {c.min():g}")
        for name, value in (("vectors", a), ("values", b), ("counts", c)):
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, covariance: ArrayLike, vectors: ArrayLike, copies: int = 0) -> Measurements:
        """True measurements of a covariance, with `copies` additional copies of the first one."""
        a, S = np.asarray(vectors, dtype=float), np.asarray(covariance, dtype=float)
        if copies < 0:
            raise ValueError(f"copies must not be negative, not {copies}")
        counts = np.ones(len(a))
        counts[0] += copies
        return cls(a, np.maximum(np.einsum("ij,jk,ik->i", a, S, a), 0), counts)

    @property
    def weights(self) -> Array:
        """c_i / Σ c_i."""
        return self.counts / self.counts.sum()

    def residuals(self, X: Array) -> Array:
        """r_i = a_iᵀ X a_i − b_i."""
        return np.einsum("ij,jk,ik->i", self.vectors, X, self.vectors) - self.values


def square_loss(measurements: Measurements, W: Array) -> tuple[float, Array]:
    """Σ w_i (‖Wᵀ a_i‖² − b_i)² with the weights of the counts, and its gradient 4 Σ w_i r_i a_i a_iᵀ W."""
    a, w = measurements.vectors, measurements.weights
    projected = a @ W
    r = np.sum(projected**2, axis=1) - measurements.values
    return float(np.sum(w * r**2)), 4 * a.T @ ((w * r)[:, None] * projected)


def sliced_loss(measurements: Measurements, W: Array) -> tuple[float, Array]:
    """Σ w_i (‖Wᵀ a_i‖ − √b_i)² and its gradient 2 Σ w_i (1 − √b_i / ‖Wᵀ a_i‖) a_i a_iᵀ W.

    Each term is the squared Bures-Wasserstein distance between N(0, a_iᵀ W Wᵀ a_i) and N(0, b_i).
    """
    a, w = measurements.vectors, measurements.weights
    projected = a @ W
    sizes = np.sqrt(np.sum(projected**2, axis=1))
    r = sizes - np.sqrt(measurements.values)
    relative = np.divide(r, sizes, out=np.zeros_like(r), where=sizes > 0)
    return float(np.sum(w * r**2)), 2 * a.T @ ((w * relative)[:, None] * projected)


#: Losses by name.
SENSING_LOSSES = {"square": square_loss, "sliced": sliced_loss}


def spectral_start(measurements: Measurements, rank: int) -> Array:
    """Start W(0) (n, k) from the weighted matrix Σ w_i b_i a_i a_iᵀ: its k leading eigenvectors.

    For Gaussian a_i the mean of that matrix is 2 Σ* + tr Σ* I. So the mean of the other eigenvalues is subtracted from
    the leading ones, and these are scaled to the weighted mean of b_i, which estimates tr Σ*.
    """
    n = measurements.vectors.shape[1]
    _check_rank(rank, n)
    a, w = measurements.vectors, measurements.weights
    eigenvalues, basis = np.linalg.eigh(symmetrize(a.T @ ((w * measurements.values)[:, None] * a)))
    eigenvalues, basis = eigenvalues[::-1], basis[:, ::-1]
    rest = eigenvalues[rank:].mean() if rank < n else 0.0
    spectrum = np.maximum(eigenvalues[:rank] - rest, 0)
    spectrum = spectrum / spectrum.sum() if spectrum.any() else np.full(rank, 1 / rank)
    return basis[:, :rank] * np.sqrt(spectrum * np.sum(w * measurements.values))


def descend(
    measurements: Measurements, start: ArrayLike, loss: str = "square", *, n_steps: int = 2000, tolerance: float = 1e-10
) -> Array:
    """Factor W (n, k) after gradient descent on a loss, with line search: each step reduces the loss by ½ η ‖∇‖².

    Descent ends after `n_steps`, or when no residual exceeds `tolerance` times the largest b_i.

    Raises
    ------
    ValueError
        On an unknown loss, or a start that does not fit.
    """
    if loss not in SENSING_LOSSES:
        raise ValueError(f"loss must be one of {', '.join(SENSING_LOSSES)}, not {loss!r}")
    W = finite_array("start", start, 2).astype(float)
    if W.shape[0] != measurements.vectors.shape[1]:
        raise ValueError(f"start must have {measurements.vectors.shape[1]} rows, not {W.shape[0]}")
    evaluate, largest = SENSING_LOSSES[loss], measurements.values.max()
    value, gradient = evaluate(measurements, W)
    step = 1 / (largest if loss == "square" else 1.0)  # the unit of η: 1/(Σ0 · a⁴), or 1/a²
    for _ in range(n_steps):
        if np.abs(measurements.residuals(W @ W.T)).max() <= tolerance * largest:
            break
        slope = float(np.sum(gradient**2))
        step *= 2
        for _ in range(100):
            moved = W - step * gradient
            lower, changed = evaluate(measurements, moved)
            if lower <= value - _ARMIJO * step * slope:
                break
            step /= 2
        else:
            break  # rounding
        W, value, gradient = moved, lower, changed
    return W


def reweighted(
    measurements: Measurements, rank: int, *, n_steps: int = 2000, tolerance: float = 1e-10
) -> tuple[Array, int]:
    """Covariance X (n, n) of rank ≤ k by locally reweighted projections, and the number of steps.

    The iteration starts from X = 0. It projects onto rank n at first and onto rank k from step `RELAXED` on; with rank
    k from the beginning, one problem in twenty gets trapped. It ends when no residual exceeds `tolerance` times the
    largest b_i. The number of copies of a measurement has no effect, because copies share one weight. A step fulfils
    the measurements that it uses, up to rounding, so that the path (though not its end) depends on the last digit.
    """
    from scipy.optimize import nnls

    a, n = measurements.vectors, measurements.vectors.shape[1]
    _check_rank(rank, n)
    rows, columns = np.triu_indices(n)
    products = (a[:, rows] * a[:, columns] * np.where(rows == columns, 1, np.sqrt(2))).T  # vec(a aᵀ), with ‖·‖_F
    largest = measurements.values.max()
    X: Array = np.zeros((n, n))
    for step in range(n_steps):
        r = measurements.residuals(X)
        size = np.abs(r).max()
        if size <= tolerance * largest:
            return X, step
        r = r / size
        # min ‖Σ w r vec(a aᵀ)‖² + (Σ w r² − 1)² over w ≥ 0 has the direction of the constrained minimum
        w, _ = nnls(np.vstack([products * r, r**2]), np.append(np.zeros(len(products)), 1.0))
        G = a.T @ ((w * r)[:, None] * a)
        allowed = max(rank, n - step * (n - rank) // RELAXED)
        X = _project(X - size * (np.sum(w * r**2) / np.sum(G**2)) * G, allowed)
    return X, n_steps


def _project(X: Array, rank: int) -> Array:
    """The nearest positive semidefinite matrix of rank ≤ k."""
    eigenvalues, basis = np.linalg.eigh(symmetrize(X))
    leading = basis[:, -rank:]
    return symmetrize((leading * np.maximum(eigenvalues[-rank:], 0)) @ leading.T)


def _check_rank(rank: int, n: int) -> None:
    if not 1 <= rank <= n:
        raise ValueError(f"rank must lie between 1 and the dimension {n}, not {rank}")
