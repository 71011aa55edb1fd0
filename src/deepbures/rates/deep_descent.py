"""What every step of deep descent takes of the loss: proved for one layer and for aligned starts, else a conjecture."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ..linalg.psd import soft_threshold
from ..losses.closed_form_rates import bures_wasserstein_global
from ..model.network import check_depth

#: So much q may exceed 1 where η was computed from q = 1.
_ROUNDING = 1e-12


def deep_descent_fraction(
    eigenvalues: ArrayLike,
    epsilon: float,
    depth: int,
    least_singular_value: float,
    largest_singular_value: float,
    step_size: float,
) -> float:
    """Fraction of L that each step of descent from a balanced start removes: L⁺ ≤ (1 − fraction) L (paper.md 8).

    η (1 − q/2) · 4 N m^{2−1/N}/(m + ε), q = 2 N η M^{1−1/N} ≤ 1, with m = min(σ_n(W_0)², λ_n − ε) and
    M = max(σ_1(W_0)², λ_1 − ε). At N = 1 it is 4 η (1 − η) m/(m + ε), the theorem for one layer. Source: ours. Proved
    for N = 1, and at every N for starts whose S commutes with Σ0 (n = 1 among them); for all other starts with N ≥ 2 it
    is a conjecture: two searches over 3,700 starts found no violation, and one violation would refute it.

    Parameters
    ----------
    eigenvalues : (n,)
        λ_1 ≥ … ≥ λ_n; k = n.
    epsilon, depth
        0 ≤ ε < λ_n, N ≥ 1.
    least_singular_value, largest_singular_value
        σ_n(W_0) and σ_1(W_0).
    step_size
        η.

    Returns
    -------
    fraction
        0 where m ≤ 0; NaN where q > 1 or η ≤ 0.
    """
    check_depth(depth)
    optimum = soft_threshold(eigenvalues, epsilon)
    M = float(max(largest_singular_value**2, optimum[0]))
    q = 2 * depth * step_size * M ** (1 - 1 / depth)
    if not 0 < q <= 1 + _ROUNDING:
        return float("nan")
    rate = bures_wasserstein_global(np.asarray(eigenvalues, dtype=float), epsilon, depth, least_singular_value)
    return step_size * (1 - q / 2) * rate
