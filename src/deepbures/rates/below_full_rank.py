"""What is proved along a whole run of rank k < n: rates of flow and descent from the excess loss of the start.

A singular value of W(0) promises nothing there, since the flow rests at saddles of rank k. The excess loss
E_0 = L(0) − L* does, where it is below that of the lowest saddle (paper.md section 8, ours). For k = n see `predicted`.
"""

import numpy as np
from numpy.typing import ArrayLike

from ..losses import closed_form_rates
from ..model.network import check_depth


def low_rank_global_rate(eigenvalues: ArrayLike, epsilon: float, depth: int, rank: int, excess_initial: float) -> float:
    """Proved rate of the balanced flow of rank k < n on the BW loss: L(t) − L* ≤ E_0 exp(−rate · t) for all t ≥ 0.

    ε = 0: 4 (√λ_k − √E_0)^{2−2/N} (1 − λ_{k+1}/(λ_k − E_0)). For 0 < ε ≤ λ_n: 4 σ^{2−2/N} γ, σ and γ as in
    `closed_form_rates.kept_singular_value` and `bures_wasserstein_dominance`. As E_0 → 0 it tends to the rate of the
    exchange of k for k+1, 4 (λ_k − ε)^{1−1/N} (λ_k − λ_{k+1})/(λ_k + √(ε λ_{k+1})), which is the sharp rate.

    Parameters
    ----------
    eigenvalues : (n,)
        λ_1 ≥ … ≥ λ_n ≥ 0.
    epsilon, depth
        ε ≥ 0, N ≥ 1.
    rank
        k, from 1 to n − 1.
    excess_initial
        E_0 = L(W(0)) − L* ≥ 0, of a W(0) of rank k.

    Returns
    -------
    rate
        Per unit time; 0 where E_0 is too large for the theorem (for ε = 0 from λ_k − λ_{k+1} on, the excess of the
        lowest saddle), NaN for ε > λ_n.

    Raises
    ------
    ValueError
        On a depth or rank that is not allowed, or E_0 < 0.
    """
    check_depth(depth)
    _check(eigenvalues, rank, excess_initial)
    return closed_form_rates.bures_wasserstein_global_low_rank(eigenvalues, epsilon, depth, rank, excess_initial)


def low_rank_descent_rate(
    eigenvalues: ArrayLike, epsilon: float, depth: int, rank: int, excess_initial: float, step_size: float
) -> float:
    """Proved fraction of L − L* that every step of descent removes, k < n: E_{i+1} ≤ (1 − fraction) E_i.

    One layer, 0 < η < 1: 4 η (1 − η) γ, with γ the `closed_form_rates.bures_wasserstein_dominance` at E_0, that is
    4 η (1 − η) (1 − λ_{k+1}/(λ_k − E_0)) for ε = 0. NaN for N ≥ 2 and for other η, where nothing is proved. Parameters
    and errors as in `low_rank_global_rate`; η is the step size.
    """
    check_depth(depth)
    _check(eigenvalues, rank, excess_initial)
    if depth != 1 or not 0 < step_size < 1:
        return float("nan")
    dominance = closed_form_rates.bures_wasserstein_dominance(eigenvalues, epsilon, rank, excess_initial)
    return 4 * step_size * (1 - step_size) * dominance


def _check(eigenvalues: ArrayLike, rank: int, excess_initial: float) -> None:
    dimension = np.size(eigenvalues)
    if not 1 <= rank < dimension:
        raise ValueError(f"rank must lie between 1 and n − 1 = {dimension - 1}, not {rank}")
    if not excess_initial >= 0:
        raise ValueError(f"excess_initial must be a number ≥ 0, not {excess_initial}")
