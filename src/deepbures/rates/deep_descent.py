"""What every step of deep descent removes of the loss: proved for small steps, and for larger ones in part."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..linalg.psd import Array, soft_threshold
from ..losses.closed_form_rates import bures_wasserstein_dominance, bures_wasserstein_global, kept_singular_value
from ..losses.registry import BuresWasserstein
from ..model.network import DeepLinearNetwork, check_depth
from .thresholds import proved_step
from .unbalanced import deep_fall, largest_layer, layer_imbalance, row_space_floor, signed_imbalance, two_layer_fall

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


def proved_descent_fraction(loss: BuresWasserstein, layers: Sequence[Array], step_size: float, rank: int) -> float:
    """Proved fraction of L − L* that each step of descent on all layers removes, at any depth (paper.md section 8).

    For 0 < η ≤ `thresholds.proved_step` the loss falls by at least (η/2) ‖∇L^N‖² in a step, and the imbalance stays
    below δ = δ(0) + 2 η L(0). k = n, c = √λ_n − √L(0) > √ε, all widths at least n: (η/2) times `two_layer_fall` or
    `deep_fall` at s = c² − ε. k < n, ε ≤ λ_n: 2 η b γ, with γ the dominance at E_0 = L(0) − L* and b the
    `row_space_floor` of W at the `kept_singular_value`. It is half of what the flow loses in the time η, or less.
    Source: ours.

    Parameters
    ----------
    loss
        With one target.
    layers : N arrays (d_j, d_{j−1})
        W_1, …, W_N at the start, balanced or not.
    step_size
        η.
    rank
        k, the bottleneck of the layers.

    Returns
    -------
    fraction
        0 where the start is too far from the minimum or from balance; NaN for steps above the proved one.
    """
    if not 0 < step_size <= proved_step(loss, layers):
        return float("nan")
    W, depth, epsilon = DeepLinearNetwork(layers).end_to_end(), len(layers), float(loss.epsilon)
    initial, eigenvalues = float(loss.value(W)), loss.eigenvalues
    drift = 2 * step_size * initial
    imbalance = layer_imbalance(layers) + drift if depth > 1 else 0.0
    largest = largest_layer(float(np.sqrt(eigenvalues[0]) + np.sqrt(initial)), imbalance, depth)
    if rank < loss.dimension:
        excess = float(loss.excess(W, rank))
        dominance = bures_wasserstein_dominance(eigenvalues, epsilon, rank, excess)
        s = kept_singular_value(eigenvalues, epsilon, rank, excess) ** 2
        return 2 * step_size * dominance * row_space_floor(s, depth, imbalance, largest)
    margin = float(np.sqrt(eigenvalues[-1]) - np.sqrt(initial))
    if margin <= 0 or margin**2 <= epsilon:
        return 0.0
    s = margin**2 - epsilon
    if depth == 2:
        above, below = signed_imbalance(layers)
        return step_size / 2 * two_layer_fall(s, epsilon, (above + drift, below + drift))
    return step_size / 2 * deep_fall(s, epsilon, depth, imbalance, largest)
