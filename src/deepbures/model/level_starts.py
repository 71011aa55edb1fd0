"""Starts with a given excess loss, on a random path away from the minimum or on the way to the lowest saddle."""

from collections.abc import Callable

import numpy as np

from ..linalg.psd import Array, equalized
from ..losses.registry import CovarianceLoss
from .starts import Start, random_frame

#: Relative accuracy of the excess, and largest number of bisections.
_ACCURACY, _HALVINGS = 1e-12, 200
#: First step of a random path, in units of √λ_k, and how often it is doubled at most.
_FIRST, _DOUBLINGS = 1e-8, 80


def lowest_exchange(loss: CovarianceLoss, rank: int) -> tuple[int, int | None, float]:
    """The second lowest critical point over rank ≤ k: the kept direction a that it exchanges for the empty b, and g.

    While direction j is empty it costs f_j = (√λ_j − √ε)² for the BW loss and λ_j² for the square loss (0 where it
    cannot be kept, λ_j ≤ ε; equal costs where eigenvalues agree to rounding). g is the least positive one of f_a − f_b,
    a ≤ k < b, and of f_a, for which b is None: a is left empty. Indices from 0; g is infinite where all critical points
    over rank ≤ k have one value.
    """
    _, first, group = np.unique(
        -equalized(loss.eigenvalues, float(loss.epsilon)), return_index=True, return_inverse=True
    )
    costs = np.where(loss.minimum_spectrum(loss.dimension) > 0, loss.empty_costs()[first][group], 0.0)
    differences = costs[:rank, None] - np.append(costs[rank:], 0.0)
    positive = np.where(differences > 0, differences, np.inf)
    a, b = np.unravel_index(np.argmin(positive), positive.shape)
    return int(a), rank + int(b) if rank + b < loss.dimension else None, float(positive[a, b])


def level_start(
    rng: np.random.Generator, loss: CovarianceLoss, rank: int, excess: float, input_dimension: int | None = None
) -> Start:
    """W(0) = (W* + t √λ_k G) Vᵀ with L(W(0)) − L* = E, G Gaussian (n, k), V random orthonormal: any direction.

    t is the first value on the path at which the excess reaches E, to a relative 1e-12.

    Parameters
    ----------
    rng
        Stream of the draw.
    loss
        With one target.
    rank
        k, the rank of W(0).
    excess
        E > 0, in the unit of the loss.
    input_dimension
        d_0 ≥ k; default n.

    Returns
    -------
    start
        Its `scale` is t.

    Raises
    ------
    ValueError
        If E is not positive.
    """
    _check(excess)
    W = loss.minimum_factor(rank)
    G = np.sqrt(loss.eigenvalues[rank - 1]) * rng.standard_normal(W.shape)

    def path(t: float) -> Array:
        return W + t * G

    high = _FIRST
    for _ in range(_DOUBLINGS):
        if float(loss.excess(path(high), rank)) >= excess:
            break
        high *= 2
    t = _bisected(lambda t: float(loss.excess(path(t), rank)), excess, high)
    V = random_frame(rng, input_dimension or loss.dimension, rank)
    return Start(path(t) @ V.T, t, 1)


def saddle_start(
    rng: np.random.Generator, loss: CovarianceLoss, rank: int, excess: float, input_dimension: int | None = None
) -> Start:
    """W(0) on the way from the minimum to the lowest saddle, which exchanges k for k + 1 (k = n: leaves n empty).

    The a-th column is cos φ √s_a Ω_a + sin φ √s_b Ω_b, s the spectrum of the minimiser of full rank and a, b of
    `lowest_exchange`, k and k + 1 where λ_k > λ_{k+1}: at φ = π/2 it is that saddle itself. φ is the first angle at
    which L − L* = E, π/2 where E is the excess of the saddle or more. Parameters, return and errors as in
    `level_start`; `scale` is φ.
    """
    _check(excess)
    a, b, _ = lowest_exchange(loss, rank)
    W = loss.minimum_factor(rank)
    column, other = W[:, a].copy(), np.zeros(loss.dimension)
    if b is not None:
        other = np.sqrt(loss.minimum_spectrum(loss.dimension)[b]) * loss.eigenvector_columns([b])[:, 0]

    def path(angle: float) -> Array:
        turned = W.copy()
        turned[:, a] = np.cos(angle) * column + np.sin(angle) * other
        return turned

    def excess_at(angle: float) -> float:
        return float(loss.excess(path(angle), rank))

    right = np.pi / 2
    saddle = path(right)
    saddle[:, a] = other  # without cos π/2 = 6e-17
    angle = (
        right if excess >= float(loss.excess(saddle, rank)) * (1 - _ACCURACY) else _bisected(excess_at, excess, right)
    )
    V = random_frame(rng, input_dimension or loss.dimension, rank)
    return Start((saddle if angle == right else path(angle)) @ V.T, angle, 1)


def _check(excess: float) -> None:
    if not excess > 0:
        raise ValueError(f"the excess loss of a start must be positive, not {excess}")


def _bisected(value: Callable[[float], float], goal: float, high: float) -> float:
    """A t in (0, high] at which a value that is 0 at 0 and at least the goal at `high` reaches the goal."""
    low = 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if value(middle) < goal:
            low = middle
        else:
            high = middle
        if high - low <= _ACCURACY * high:
            break
    return high
