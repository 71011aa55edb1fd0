"""What theory predicts for a run: the paper's constants and bound, and the sharp local rates.

References are to paper.md; c, C_0, K, M, Δ, η_1..η_3 are the paper's symbols. Δ and the step sizes
leave the range of floats at large depth, so that they are kept as decimal logarithms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .losses import BuresWasserstein, CovarianceLoss, Frobenius
from .psd import INPUT_TOLERANCE, Array, geometric_sum


@dataclass(frozen=True)
class Constants:
    """The constants of the paper's convergence theorems (paper.md sections 4 and 5).

    Attributes
    ----------
    margin
        c = √λ_k − √L(0).
    C_0
        2 (L(0) + tr Σ0).
    K
        √(ε λ_n) / (2 C_0²).
    M
        √C_0.
    log10_Delta
        Δ = 2^{N+1} c^{-2N} N² M^{(4N-3)/N} √λ_1 + 8 N (N-1) M^{(3N-4)/N} (M^{1/N} + tr Σ0).
    log10_eta_1, log10_eta_2, log10_eta_3
        η_1 = c² / (8 M √L(0));  η_2 = N c^{2(N-1)/N} / (2 Δ);  η_3 = 1 / (4 N c^{2(N-1)/N}).
    bound_rate
        8 N c^{2(2N-1)/N} K, per unit time: L(t) − L* ≤ (L(0) − L*) exp(−bound_rate · t).
    descent_rate
        Promised to gradient descent with η ≤ min(η_1, η_2, η_3): L − L* shrinks in each step by at least
        the factor 1 − η · descent_rate. 4 N c^{2(2N-1)/N} K for ε > 0; 2 N c^{2(N-1)/N} for ε = 0, k = n;
        NaN for ε = 0, k < n (paper.md section 5, reconstructed).

    Where c ≤ 0 the theorems do not apply: Δ, the step sizes and the rates are NaN.
    """

    margin: float
    C_0: float
    K: float
    M: float
    log10_Delta: float
    log10_eta_1: float
    log10_eta_2: float
    log10_eta_3: float
    bound_rate: float
    descent_rate: float

    @property
    def log10_step_size(self) -> float:
        """log10 min(η_1, η_2, η_3), the largest step size that the descent theorem allows."""
        return min(self.log10_eta_1, self.log10_eta_2, self.log10_eta_3)


def paper_constants(
    eigenvalues: Array,
    epsilon: float,
    depth: int,
    loss_initial: float,
    margin: float | None = None,
    rank: int | None = None,
) -> Constants:
    """Constants of the paper for a run.

    Parameters
    ----------
    eigenvalues : (n,)
        λ_1 ≥ … ≥ λ_n of the target.
    epsilon, depth
        ε ≥ 0 and N ≥ 1.
    loss_initial
        L_ε(W(0)) > 0.
    margin
        c; default √λ_k − √L(0).
    rank
        k; default n.
    """
    eigenvalues = np.asarray(eigenvalues, dtype=float)
    N, trace = depth, float(eigenvalues.sum())
    if margin is None:
        margin = float(np.sqrt(eigenvalues[(rank or len(eigenvalues)) - 1]) - np.sqrt(loss_initial))
    C_0 = 2 * (loss_initial + trace)
    K = float(np.sqrt(epsilon * eigenvalues[-1]) / (2 * C_0**2))
    M = np.sqrt(C_0)
    log_c = np.log(margin) if margin > 0 else np.nan
    log_M = np.log(M)
    log_Delta = (
        (N + 1) * np.log(2) - 2 * N * log_c + 2 * np.log(N) + (4 * N - 3) / N * log_M + np.log(eigenvalues[0]) / 2
    )
    if N > 1 and margin > 0:
        second = np.log(8 * N * (N - 1)) + (3 * N - 4) / N * log_M + np.log(M ** (1 / N) + trace)
        log_Delta = np.logaddexp(log_Delta, second)
    log_power = 2 * (N - 1) / N * log_c  # log c^{2(N-1)/N}
    natural = (
        log_Delta,
        2 * log_c - np.log(8) - log_M - np.log(loss_initial) / 2,
        np.log(N / 2) + log_power - log_Delta,
        -np.log(4 * N) - log_power,
    )
    log10_Delta, log10_eta_1, log10_eta_2, log10_eta_3 = (float(value / np.log(10)) for value in natural)
    bound_rate = float(8 * N * np.exp(2 * (2 * N - 1) / N * log_c) * K)
    if epsilon > 0:
        descent_rate = bound_rate / 2
    else:  # ‖∇L_0‖² = 4 L_0 where W has full rank
        descent_rate = float(2 * N * np.exp(log_power)) if rank in (None, len(eigenvalues)) else float("nan")
    return Constants(
        margin, C_0, K, float(M), log10_Delta, log10_eta_1, log10_eta_2, log10_eta_3, bound_rate, descent_rate
    )


def flow_bound(times: Array, excess_initial: float, bound_rate: float) -> Array:
    """The paper's bound on L(t) − L*: (L(0) − L*) exp(−bound_rate · t) (paper.md section 4)."""
    return excess_initial * np.exp(-bound_rate * np.asarray(times))


def local_rates(
    eigenvalues: Array, epsilon: float, depth: int, rank: int | None = None, kept: ArrayLike | None = None
) -> tuple[Array, Array]:
    """Rates at which the reduced flow leaves (< 0) or approaches (> 0) a critical point of the BW loss.

    At the rank-k critical point of index set J, with s_a = λ_a − ε (paper.md section 4):
    in-block, a ≤ b in J: r_ab = 2 (s_a + s_b)/(λ_a + λ_b) · P_ab, P_ab = (s_a − s_b)/(s_a^{1/N} − s_b^{1/N});
    off-block, a in J, b not in J: r_ab = 2 s_a^{1−1/N} (λ_a − λ_b)/(λ_a + √(ε λ_b)).

    Parameters
    ----------
    eigenvalues : (n,)
        λ_1 ≥ … ≥ λ_n.
    epsilon, depth
        ε ≤ λ_a for every a in J; N.
    rank
        k: J = {1..k}, the minimum. Default n.
    kept
        Another J, as indices from 0.

    Returns
    -------
    in_block : (k (k+1)/2,)
    off_block : (k (n−k),)

    Raises
    ------
    ValueError
        If ε exceeds some λ_a with a in J: the closed form does not cover that.
    """
    inside, outside = _kept_and_not(eigenvalues, rank, kept)
    if np.any(inside * (1 + INPUT_TOLERANCE) < epsilon):
        raise ValueError(
            f"epsilon must not exceed the kept eigenvalues, whose least is {inside.min():.6g}, not {epsilon}"
        )
    s = np.maximum(inside - epsilon, 0)
    a, b = np.triu_indices(len(s))
    in_block = 2 / (inside[a] + inside[b]) * _in_block(s, depth)
    difference = inside[:, None] - outside
    off_block = 2 * (s ** (1 - 1 / depth))[:, None] * difference / (inside[:, None] + np.sqrt(epsilon * outside))
    return in_block, off_block.ravel()


def frobenius_local_rates(
    eigenvalues: Array, depth: int, rank: int | None = None, kept: ArrayLike | None = None
) -> tuple[Array, Array]:
    """`local_rates` of the Frobenius loss, at its critical point S = Σ_{a in J} λ_a Ω_a Ω_aᵀ.

    In-block, a ≤ b in J: r_ab = 4 (λ_a + λ_b) P_ab, P_ab = (λ_a − λ_b)/(λ_a^{1/N} − λ_b^{1/N});
    off-block, a in J, b not in J: r_ab = 4 λ_a^{1−1/N} (λ_a − λ_b). Ours, from B = 4 (S − Σ0) in place of
    B = 2 (I − T).
    """
    inside, outside = _kept_and_not(eigenvalues, rank, kept)
    off_block = 4 * (inside ** (1 - 1 / depth))[:, None] * (inside[:, None] - outside)
    return 4 * _in_block(inside, depth), off_block.ravel()


def _kept_and_not(eigenvalues: Array, rank: int | None, kept: ArrayLike | None) -> tuple[Array, Array]:
    eigenvalues = np.asarray(eigenvalues, dtype=float)
    J = np.asarray(range(rank or len(eigenvalues)) if kept is None else kept, dtype=int)
    return eigenvalues[J], np.delete(eigenvalues, J)


def _in_block(s: Array, depth: int) -> Array:
    """(s_a + s_b) P_ab for a ≤ b, P_ab = (s_a − s_b)/(s_a^{1/N} − s_b^{1/N})."""
    a, b = np.triu_indices(len(s))
    root = s ** (1 / depth)
    return (s[a] + s[b]) * geometric_sum(root[a], root[b], depth)


def rates_at_minimum(loss: CovarianceLoss, depth: int, rank: int | None = None) -> Array:
    """All local rates r at the minimum over rank ≤ k: (k (k+1)/2 + k (n−k),).

    NaN where no closed form is known: for ε > λ_k, and for other losses than Bures-Wasserstein and Frobenius.

    They are the non-zero eigenvalues of the Hessian of the deep loss at the balanced minimum, too:
    Jᵀ ∇²L J and J Jᵀ ∇²L have the same, and the range of Jᵀ is tangent to the balanced weights.
    """
    eigenvalues, rank = loss.eigenvalues, rank or loss.dimension
    if isinstance(loss, Frobenius):
        return np.concatenate(frobenius_local_rates(eigenvalues, depth, rank))
    if isinstance(loss, BuresWasserstein) and loss.epsilon <= eigenvalues[rank - 1] * (1 + INPUT_TOLERANCE):
        return np.concatenate(local_rates(eigenvalues, float(loss.epsilon), depth, rank))
    return np.full(rank * (rank + 1) // 2 + rank * (loss.dimension - rank), np.nan)


def stable_step(rates: Array) -> float:
    """2/λ_max: the step size from which on gradient descent cannot stay at the minimum with these local rates.

    λ_max = max r is the largest eigenvalue of the Hessian of the deep loss at the balanced minimum; for
    ε = 0, k = n it is 2 N λ_1^{1−1/N}, and the largest stable step 1/(N λ_1^{1−1/N}).
    """
    fastest = float(rates.max())
    return 2 / fastest if fastest > 0 else float("inf")  # flat: n = k = 1, ε = λ_1


def descent_contraction(rates: Array, step_size: float) -> float:
    """Factor by which L − L* shrinks in a step, finally, at the minimum with these rates: max_r (1 − η r)²."""
    return float(np.max((1 - step_size * rates) ** 2))


def sharp_rate(eigenvalues: Array, epsilon: float, depth: int, rank: int | None = None) -> float:
    """Exact asymptotic decay rate of the excess loss at the minimum: L(t) − L* ~ exp(−sharp_rate · t).

    Twice the smallest local rate; 4 N λ_n^{1−1/N} for ε = 0, k = n. It is 0 when ε = λ_k (the decay is
    then slower than exponential) and NaN when ε > λ_k, which the closed form does not cover.
    """
    if epsilon > eigenvalues[(rank or len(eigenvalues)) - 1] * (1 + INPUT_TOLERANCE):
        return float("nan")
    return float(2 * min(rates.min() for rates in local_rates(eigenvalues, epsilon, depth, rank) if rates.size))
