"""The constants of the authors' program, and where its bound on the flow is proved.

c, C_0, K, M, Δ, η_1..η_3 are the symbols of the program (paper.md sections 4 and 5). At large depth Δ and the step
sizes leave the range of floats, so they are stored as decimal logarithms.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..linalg.psd import Array, soft_threshold
from ..losses.closed_form_rates import retained


@dataclass(frozen=True)
class Constants:
    """The constants of the authors' program (paper.md sections 4 and 5).

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
        log10 of Δ = 2^{N+1} c^{-2N} N² M^{(4N-3)/N} √λ_1 + 8 N (N-1) M^{(3N-4)/N} (M^{1/N} + tr Σ0).
    log10_eta_1, log10_eta_2, log10_eta_3
        log10 of η_1 = c² / (8 M √L(0));  η_2 = N c^{2(N-1)/N} / (2 Δ);  η_3 = 1 / (4 N c^{2(N-1)/N}).
    bound_rate
        8 N c^{2(2N-1)/N} K, per unit time: L(t) − L* ≤ (L(0) − L*) exp(−bound_rate · t), reconstructed. It holds
        where `bound_is_proved`; in general it is false.
    descent_rate
        The rate of the bound on gradient descent with η ≤ min(η_1, η_2, η_3): each step multiplies L − L* by at most
        1 − η · descent_rate. 4 N c^{2(2N-1)/N} K for ε > 0; 2 N c^{2(N-1)/N} for ε = 0, k = n;
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


def program_constants(
    eigenvalues: Array,
    epsilon: float,
    depth: int,
    loss_initial: float,
    margin: float | None = None,
    rank: int | None = None,
) -> Constants:
    """Constants of the authors' program for a run.

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


def bound_is_proved(margin: float, epsilon: float, eigenvalues: ArrayLike, least_singular_value: float) -> bool:
    """Whether the program's bound on the flow follows from the global rate, for k = n (paper.md section 8).

    It does if 0 < c and c² ≤ min(σ_n(W(0))², λ_n − ε), at any depth. For ε = 0 the bound has the rate 0 and holds
    wherever c > 0.
    """
    optimum = soft_threshold(eigenvalues, epsilon)
    return bool(margin > 0 and (epsilon == 0 or margin**2 <= retained(optimum, least_singular_value)))
