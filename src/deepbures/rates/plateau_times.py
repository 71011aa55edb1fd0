"""Times of the flow from aligned starts, by quadrature of ds/dt = 4 N s^{2−1/N} (√(λ/(s + ε)) − 1) for each mode.

A plateau of the loss ends when the next mode has grown.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from ..linalg.psd import Array, soft_threshold
from ..losses.registry import CovarianceLoss
from ..model.network import check_depth

#: Nodes of the quadrature on each panel, and the width of a panel in the logarithm of the distance to a pole.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(20)
_PANEL = 0.5


def mode_times(eigenvalue: float, epsilon: float, depth: int, s_initial: ArrayLike, s_final: ArrayLike) -> Array:
    """Time in which one mode of an aligned start goes from s_initial to s_final (paper.md section 9).

    Where S commutes with Σ0, ds/dt = 4 N s^{2−1/N} (√(λ/(s + ε)) − 1), with the limit s* = (λ − ε)_+. The time is the
    integral ∫ ds/(ds/dt), computed on Gauss-Legendre panels in log s or, near s*, in log |s − s*|, to a relative 1e-12.

    Parameters
    ----------
    eigenvalue, epsilon, depth
        λ > 0, ε ≥ 0, N ≥ 1.
    s_initial, s_final
        Eigenvalues of S > 0, broadcast against each other. s_final lies between s_initial and s*; the time to s* itself
        is infinite.

    Raises
    ------
    ValueError
        If s_initial is not positive, or s_final does not lie between it and s*.
    """
    check_depth(depth)
    start, end = np.broadcast_arrays(np.asarray(s_initial, dtype=float), np.asarray(s_final, dtype=float))
    limit = max(eigenvalue - epsilon, 0.0)
    on_the_way = np.where(start <= limit, (start <= end) & (end <= limit), (end <= start) & (limit <= end))
    if not (np.all(start > 0) and np.all(on_the_way)):
        raise ValueError(f"s_final must lie between s_initial > 0 and the limit {limit:.6g} of the mode")
    times = [_mode_time(eigenvalue, epsilon, depth, a, b) for a, b in zip(start.flat, end.flat, strict=True)]
    return np.reshape(times, start.shape)[()]


def half_times(eigenvalues: ArrayLike, epsilon: float, depth: int, s_initial: ArrayLike) -> Array:
    """Times at which the modes of an aligned start reach half of their limits (λ_j − ε)_+, (k,): ends of plateaus.

    From a small aligned start the loss passes the levels Σ_{j>i} (√λ_j − √ε)² one by one; level i lasts from the
    half-time of mode i to that of mode i + 1. `s_initial` holds the eigenvalues of S(0) along the first k directions,
    or one number. The time is 0 if a mode starts above half of its limit, and infinite if it vanishes (λ_j ≤ ε).
    """
    spectrum = np.asarray(eigenvalues, dtype=float)
    optimum = soft_threshold(spectrum, epsilon)
    start = np.broadcast_to(np.asarray(s_initial, dtype=float), spectrum.shape)
    return np.array(
        [
            float("inf") if s == 0 else 0.0 if a >= s / 2 else float(mode_times(x, epsilon, depth, a, s / 2))
            for x, s, a in zip(spectrum, optimum, start, strict=True)
        ]
    )


def aligned_sharp_rate(loss: CovarianceLoss, depth: int, rank: int) -> float:
    """Sharp rate of an aligned start with k modes, 2 min_a r_aa over a ≤ k: L − L* ~ exp(−rate · t) (paper.md 4).

    An aligned start has no component in any exchange (a, b), a ≠ b, and keeps none: of the local rates at the minimum
    only the diagonal ones are excited. For the BW loss 4 N s_a^{2−1/N}/λ_a, s_a = λ_a − ε, least at a = k; for k < n
    this exceeds the sharp rate of a generic start wherever the exchange of k for k + 1 is slower. 0 where ε ≥ λ_k; NaN
    for a loss without closed forms.
    """
    kept = np.flatnonzero(loss.minimum_spectrum(rank) > 0)
    rates = loss.local_rates(depth, kept)
    if rates is None:
        return float("nan")
    a, b = np.triu_indices(len(kept))
    return 2 * float(rates[0][a == b].min()) if len(kept) == rank else 0.0


def _mode_time(eigenvalue: float, epsilon: float, depth: int, start: float, end: float) -> float:
    """`mode_times` of one pair: panels in log s on the side of 0, in log |s − s*| on the side of the limit."""
    signed_limit = eigenvalue - epsilon
    limit = max(signed_limit, 0.0)
    if start == end:
        return 0.0
    if end == limit:
        return float("inf")

    def slowness(s: Array, gap: Array) -> Array:
        """1/|ds/dt|, from the exact gap |s − (λ − ε)|: √(λ/(s+ε)) − 1 = (λ − ε − s)/((s+ε) (1 + √(λ/(s+ε))))."""
        shifted = s + epsilon
        return shifted * (1 + np.sqrt(eigenvalue / shifted)) / (4 * depth * s ** (2 - 1 / depth) * gap)

    low, high = min(start, end), max(start, end)
    if limit == 0:
        return _panels(lambda s: slowness(s, s - signed_limit), low, high)
    if start < limit:  # grows
        cut = min(max(limit / 2, low), high)
        return _panels(lambda s: slowness(s, limit - s), low, cut) + _panels(
            lambda gap: slowness(limit - gap, gap), limit - high, limit - cut
        )
    cut = min(max(1.5 * limit, low), high)
    return _panels(lambda gap: slowness(limit + gap, gap), low - limit, cut - limit) + _panels(
        lambda s: slowness(s, s - limit), cut, high
    )


def _panels(integrand: Callable[[Array], Array], low: float, high: float) -> float:
    """∫ f(x) dx over [low, high], low > 0, in log x."""
    if high <= low:
        return 0.0
    edges = np.linspace(np.log(low), np.log(high), 1 + int(np.ceil(np.log(high / low) / _PANEL)))
    half = np.diff(edges)[:, None] / 2
    x = np.exp((edges[:-1] + edges[1:])[:, None] / 2 + half * _NODES)
    return float(np.sum(half * _WEIGHTS * x * integrand(x)))
