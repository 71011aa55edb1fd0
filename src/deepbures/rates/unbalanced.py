"""What is proved along the flow from layers that are not balanced, k = n (paper.md section 8, ours).

The flow conserves D_j = W_{j+1}ᵀ W_{j+1} − W_j W_jᵀ. Where these are small against the least singular value of W, each
layer still sees enough of the gradient for an exponential rate.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from ..linalg.psd import Array


def layer_imbalance(layers: Sequence[ArrayLike]) -> float:
    """δ = max_j ‖W_{j+1}ᵀ W_{j+1} − W_j W_jᵀ‖ in the spectral norm; 0 for one layer."""
    return max((float(np.abs(ends).max()) for ends in _imbalances(layers)), default=0.0)


def signed_imbalance(layers: Sequence[ArrayLike]) -> tuple[float, float]:
    """d_+ and d_−, d_± = λ_max(±D)_+ of D = W_2ᵀ W_2 − W_1 W_1ᵀ, for two layers."""
    (ends,) = _imbalances(layers)
    return max(float(ends[-1]), 0.0), max(float(-ends[0]), 0.0)


def largest_layer(largest_singular_value: float, imbalance: float, depth: int) -> float:
    """B with ‖W_j‖ ≤ B for all layers, from σ_1(W) and the imbalance δ.

    B² is the root z of (z − (N−1) δ)^N = σ_1² + ½ N (N−1) δ z^{N−1} above (N−1) δ: σ_1^{1/N} for balanced layers.
    """
    shift, drift = (depth - 1) * imbalance, 0.5 * depth * (depth - 1) * imbalance

    def lack(z: float) -> float:
        """Of one sign below the root and of the other above: both sides over z^{N−1}."""
        scaled = (z - shift) * (1 - shift / z) ** (depth - 1)
        return float(scaled - drift - (largest_singular_value / z ** ((depth - 1) / 2)) ** 2)

    low, high = shift, max(shift, largest_singular_value ** (2 / depth), 1e-300)
    while lack(high) < 0:
        low, high = high, 2 * high
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if lack(middle) < 0 else (low, middle)
    return float(np.sqrt(high))


def product_drifts(depth: int, imbalance: float, largest: float) -> Array:
    """β_i = ½ i (i−1) δ B^{2(i−1)}, i = 0..N: how far products of layers are from powers of one of them.

    ‖A Aᵀ − (W_N W_Nᵀ)^i‖ ≤ β_i for A = W_N ⋯ W_{N−i+1}, and ‖Cᵀ C − (W_1ᵀ W_1)^i‖ ≤ β_i for C = W_i ⋯ W_1, where no
    layer has a norm above B and no imbalance exceeds δ.
    """
    i = np.arange(depth + 1)
    return np.asarray(0.5 * i * (i - 1) * imbalance * largest ** (2.0 * np.maximum(i - 1, 0)))


def two_layer_fall(s: float, epsilon: float, imbalance: tuple[float, float]) -> float:
    """4 (μ + ν) s/(s + ε), N = 2: −dL/dt is at least that times L, at any W_2 W_1 with σ_n(W)² = s.

    μ = (√(d_−² + 4 s) − d_−)/2 ≤ σ_n(W_2)² and ν = (√(d_+² + 4 s) − d_+)/2, the same for W_1 on the rows of W, with
    d_± = λ_max(±D)_+, D = W_2ᵀ W_2 − W_1 W_1ᵀ. Balanced: 8 s^{3/2}/(s + ε).

    Parameters
    ----------
    s, epsilon
        σ_n(W)² > 0 and ε ≥ 0.
    imbalance
        d_+ and d_−.
    """
    mu, nu = (2 * s / (np.sqrt(d**2 + 4 * s) + d) for d in imbalance)
    return float(4 * (mu + nu) * s / (s + epsilon))


def deep_fall(s: float, epsilon: float, depth: int, imbalance: float, largest: float) -> float:
    """4 Σ_j a_j b_j s/(s + ε), any N: −dL/dt is at least that times L, at layers with ‖W_j‖ ≤ B and σ_n(W)² = s.

    With β_i of `product_drifts`:
    a_j = ((s − β_N)_+^{(N−j)/N} − β_{N−j})_+ and b_j = (s^{(j−1)/N} − β_N^{(j−1)/N} − β_{j−1})_+ (1 for j = 1).
    Balanced: 4 N s^{2−1/N}/(s + ε).
    """
    beta = product_drifts(depth, imbalance, largest)
    i = np.arange(depth)
    above, below = i[::-1], i  # N − j and j − 1, for j = 1..N
    a = np.maximum(np.where(above > 0, max(s - beta[-1], 0) ** (above / depth), 1.0) - beta[above], 0)
    b = np.maximum(np.where(below > 0, s ** (below / depth) - beta[-1] ** (below / depth), 1.0) - beta[below], 0)
    return float(4 * np.sum(a * b) * s / (s + epsilon))


def row_space_floor(s: float, depth: int, imbalance: float, largest: float) -> float:
    """b = (s^{(N−1)/N} − β_N^{(N−1)/N} − β_{N−1})_+, with |W_{N−1} ⋯ W_1 u|² ≥ b for unit u in the row space of W.

    s is at most the least positive eigenvalue of Wᵀ W, for W of any rank; the β are those of `deep_fall`. It is 1 for
    N = 1, and s^{1−1/N} for balanced layers.
    """
    if depth == 1:
        return 1.0
    beta, power = product_drifts(depth, imbalance, largest), (depth - 1) / depth
    return float(max(s**power - beta[-1] ** power - beta[-2], 0.0))


def unbalanced_global_rate(
    eigenvalues: ArrayLike, epsilon: float, loss_initial: float, layers: Sequence[ArrayLike]
) -> float:
    """Proved rate of the flow on layers of any balance, k = n: L(t) ≤ L(0) exp(−rate · t), at every time.

    With c = √λ_n − √L(0) > √ε the margin gives σ_n(W(t))² ≥ s = c² − ε at all times; the rate is `two_layer_fall` there
    for N = 2, and `deep_fall` for other N, with σ_1(W(t)) ≤ √λ_1 + √L(0).

    Parameters
    ----------
    eigenvalues : (n,)
        λ_1 ≥ … ≥ λ_n.
    epsilon, loss_initial
        ε ≥ 0, and L_ε(W(0)).
    layers : N arrays (d_j, d_{j−1})
        W_1(0), …, W_N(0), all widths at least n.

    Returns
    -------
    rate
        Per unit time; 0 where c ≤ √ε or, for N ≥ 3, where the imbalance is too large.

    Raises
    ------
    ValueError
        If a width is below n.
    """
    spectrum = np.asarray(eigenvalues, dtype=float)
    narrowest = min(min(np.shape(layer)) for layer in layers)
    if narrowest < len(spectrum):
        raise ValueError(f"layers must have widths of at least n = {len(spectrum)}, not {narrowest}")
    margin = np.sqrt(spectrum[-1]) - np.sqrt(loss_initial)
    if margin <= 0 or margin**2 <= epsilon:
        return 0.0
    s, depth = float(margin**2 - epsilon), len(layers)
    if depth == 2:
        return two_layer_fall(s, epsilon, signed_imbalance(layers))
    imbalance = layer_imbalance(layers)
    largest = largest_layer(float(np.sqrt(spectrum[0]) + np.sqrt(loss_initial)), imbalance, depth)
    return deep_fall(s, epsilon, depth, imbalance, largest)


def _imbalances(layers: Sequence[ArrayLike]) -> list[Array]:
    """Eigenvalues, smallest first, of W_{j+1}ᵀ W_{j+1} − W_j W_jᵀ, j = 1..N−1."""
    arrays = [np.asarray(layer, dtype=float) for layer in layers]
    return [np.linalg.eigvalsh(upper.T @ upper - lower @ lower.T) for lower, upper in pairwise(arrays)]
