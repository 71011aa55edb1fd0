"""How low a start must be so that a run from it ends at the minimum: below the second lowest critical value."""

from collections.abc import Sequence

import numpy as np

from ..linalg.psd import Array
from ..losses.registry import BuresWasserstein, CovarianceLoss
from ..model.level_starts import lowest_exchange
from .unbalanced import largest_layer, layer_imbalance


def critical_gap(loss: CovarianceLoss, rank: int) -> float:
    """g, the second lowest critical value over rank ≤ k less L*: L(0) < L* + g ⇒ L(t) → L* (paper.md section 4, ours).

    While direction j is empty it costs f_j = (√λ_j − √ε)² for the BW loss and λ_j² for the square loss (0 where it
    cannot be kept, λ_j ≤ ε). The second lowest critical point exchanges one kept direction for another or leaves it
    empty: g is the least positive one of f_a − f_b, a ≤ k < b, and of f_a. Where λ_k > λ_{k+1} and λ_k > ε it is
    (√λ_k − √ε)² − ((√λ_{k+1} − √ε)_+)², without the second term for k = n.

    Parameters
    ----------
    loss
        With one target.
    rank
        k, from 1 to n.

    Returns
    -------
    gap
        In the unit of the loss; infinite where all critical points over rank ≤ k have one value (all λ_j ≤ ε).

    Raises
    ------
    ValueError
        On a stack of targets or a rank out of range.
    """
    if loss.shape != ():
        raise ValueError(f"loss must have one target, not a stack of shape {loss.shape}")
    if not 1 <= rank <= loss.dimension:
        raise ValueError(f"rank must lie between 1 and the dimension {loss.dimension}, not {rank}")
    return lowest_exchange(loss, rank)[2]


def convergence_threshold(loss: CovarianceLoss, rank: int) -> float:
    """L* + g, the second lowest critical value over rank ≤ k (paper.md section 4, ours).

    From every W(0) with L(0) below it gradient flow converges to the minimum, at every depth N, for all widths and
    without balance (ε > 0; the square loss), and so does descent on one layer with 0 < η < 1 (BW loss, ε > 0). At the
    value itself lies a saddle, where the flow rests. See `critical_gap`.
    """
    return float(loss.minimum_value(rank)) + critical_gap(loss, rank)


def proved_step(loss: BuresWasserstein, layers: Sequence[Array]) -> float:
    """A step size η̄: for 0 < η ≤ η̄ descent on all layers never increases L, and L(0) < L* + g, ε > 0 ⇒ L_i → L*.

    η̄ ≤ 1/β with β = 2 N B^{2N−2} + 2 (N−1) B^{N−2} √L(0), which bounds the curvature of the deep loss from above where
    no layer has a norm above B (paper.md section 5, ours). B = `largest_layer` of the imbalance δ(0) + 2 η̄ L(0), which
    no step up to η̄ can exceed, and of ‖W‖ ≤ √λ_1 + √L(0). For a balanced start next to the minimum, k = n, η̄ is close
    to half of the largest stable step 1/(N λ_1^{1−1/N}).

    Parameters
    ----------
    loss
        With one target and any ε ≥ 0; the limit L* needs ε > 0.
    layers : N arrays (d_j, d_{j−1})
        W_1, …, W_N, balanced or not.
    """
    depth, W = len(layers), layers[0]
    for layer in layers[1:]:
        W = layer @ W
    initial = float(loss.value(W))
    largest = float(np.sqrt(loss.eigenvalues[0]) + np.sqrt(initial))
    step, imbalance = np.inf, layer_imbalance(layers)
    while True:
        drift = 0.0 if np.isinf(step) else 2 * step * initial
        bound = largest_layer(largest, imbalance + drift, depth)
        curvature = 2 * depth * bound ** (2 * depth - 2)
        curvature += 2 * (depth - 1) * bound ** max(depth - 2, 0) * np.sqrt(initial)
        if step <= 1 / curvature:
            return float(step)
        step = 1 / curvature if np.isinf(step) else step / 2
