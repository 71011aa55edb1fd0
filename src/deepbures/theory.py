"""What theory predicts for a run: the program's constants and bound, local and global rates, times of plateaus.

References are to paper.md, which names the source of each statement. c, C_0, K, M, Δ, η_1..η_3 are the symbols
of the authors' program. Δ and the step sizes leave the range of floats at large depth, so that they are kept as
decimal logarithms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from . import flow_rates
from .losses import CovarianceLoss
from .network import check_depth
from .psd import Array, soft_threshold

#: Nodes of the quadrature on each panel, and the width of a panel in the logarithm of the distance to a pole.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(20)
_PANEL = 0.5


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
        Δ = 2^{N+1} c^{-2N} N² M^{(4N-3)/N} √λ_1 + 8 N (N-1) M^{(3N-4)/N} (M^{1/N} + tr Σ0).
    log10_eta_1, log10_eta_2, log10_eta_3
        η_1 = c² / (8 M √L(0));  η_2 = N c^{2(N-1)/N} / (2 Δ);  η_3 = 1 / (4 N c^{2(N-1)/N}).
    bound_rate
        8 N c^{2(2N-1)/N} K, per unit time: L(t) − L* ≤ (L(0) − L*) exp(−bound_rate · t), reconstructed. It holds
        where `bound_is_proved`, and is false in general.
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


def flow_bound(times: ArrayLike, excess_initial: float, rate: float) -> Array:
    """(L(0) − L*) exp(−rate · t), with the program's rate (paper.md section 4) or the global one (section 8)."""
    return excess_initial * np.exp(-rate * np.asarray(times))


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
        Exactly 0 between eigenvalues that agree to rounding; `flow_rates.tied_exchanges` is their mask.

    Raises
    ------
    ValueError
        If ε exceeds some λ_a with a in J: the closed form does not cover that.
    """
    return flow_rates.bures_wasserstein(eigenvalues, epsilon, depth, _index_set(eigenvalues, rank, kept))


def frobenius_local_rates(
    eigenvalues: Array, depth: int, rank: int | None = None, kept: ArrayLike | None = None
) -> tuple[Array, Array]:
    """`local_rates` of the square loss, at its critical point S = Σ_{a in J} λ_a Ω_a Ω_aᵀ (paper.md section 5).

    In-block, a ≤ b in J: r_ab = 4 (λ_a + λ_b) P_ab, P_ab = (λ_a − λ_b)/(λ_a^{1/N} − λ_b^{1/N});
    off-block, a in J, b not in J: r_ab = 4 λ_a^{1−1/N} (λ_a − λ_b). From B = 4 (S − Σ0) in place of B = 2 (I − T).
    """
    return flow_rates.frobenius(eigenvalues, depth, _index_set(eigenvalues, rank, kept))


def _index_set(eigenvalues: Array, rank: int | None, kept: ArrayLike | None) -> ArrayLike:
    return np.arange(rank or len(eigenvalues)) if kept is None else kept


def rates_at_minimum(loss: CovarianceLoss, depth: int, rank: int | None = None) -> Array:
    """All local rates r at the minimum over rank ≤ k, without the zeros that leave the loss as it is.

    With r the rank of the minimum: r (r+1)/2 in-block; r (n−r) off-block, less one for each exchange of equal
    eigenvalues across the edge k, which moves along a manifold of minima; and (k−r) (n−r) of empty columns where
    r < k (ε ≥ λ_k, or k beyond the rank of the target): for N ≥ 2 those are 0, and the decay is algebraic.
    k (k+1)/2 + k (n−k) times NaN for a loss without a closed form.

    Those that are not 0 are the non-zero eigenvalues of the Hessian of the deep loss at the balanced minimum, too:
    Jᵀ ∇²L J and J Jᵀ ∇²L have the same, and the range of Jᵀ is tangent to the balanced weights.
    """
    eigenvalues, rank = loss.eigenvalues, rank or loss.dimension
    J = np.flatnonzero(loss.minimum_spectrum(rank) > 0)
    rates, filling = loss.local_rates(depth, J), loss.filling_rates(J)
    if rates is None or filling is None:
        return np.full(rank * (rank + 1) // 2 + rank * (loss.dimension - rank), np.nan)
    tied = flow_rates.tied_exchanges(eigenvalues, float(loss.smoothing), J)
    return flow_rates.nonzero_by_symmetry(rates, tied, filling, depth, rank - len(J))


def local_condition(loss: CovarianceLoss, depth: int, rank: int | None = None) -> float:
    """max r/min r over the `rates_at_minimum`: the condition number of descent near the minimum.

    ε = 0, k = n: (λ_1/λ_n)^{1−1/N} for the BW loss, (λ_1/λ_n)^{2−1/N} for the square loss (paper.md section 9).
    Infinite where min r = 0, NaN where no closed form is known.
    """
    rates = rates_at_minimum(loss, depth, rank)
    least = float(rates.min())
    return float(rates.max()) / least if least != 0 else float("inf")


def stable_step(rates: Array) -> float:
    """2/λ_max: the step size from which on gradient descent cannot stay at the minimum with these local rates.

    λ_max = max r is the largest eigenvalue of the Hessian of the deep loss at the balanced minimum; for
    ε = 0, k = n it is 2 N λ_1^{1−1/N}, and the largest stable step 1/(N λ_1^{1−1/N}).
    """
    largest = float(rates.max())
    return 2 / largest if largest != 0 else float("inf")


def descent_contraction(rates: Array, step_size: float) -> float:
    """Factor by which L − L* shrinks in a step, finally, at the minimum with these rates: max_r (1 − η r)²."""
    return float(np.max((1 - step_size * rates) ** 2))


def sharp_rate(eigenvalues: Array, epsilon: float, depth: int, rank: int | None = None) -> float:
    """Exact asymptotic decay rate of the excess BW loss at the minimum: L(t) − L* ~ exp(−sharp_rate · t).

    Twice the smallest of the local rates, exchanges of equal eigenvalues left out; 4 N λ_n^{1−1/N} for ε = 0, k = n.
    It is 0 where the decay is slower than exponential: ε = λ_k, or for N ≥ 2 a k beyond the number of λ_j > ε.
    """
    rank = rank or len(eigenvalues)
    J = np.flatnonzero(soft_threshold(eigenvalues, epsilon)[:rank] > 0)
    rates = flow_rates.nonzero_by_symmetry(
        flow_rates.bures_wasserstein(eigenvalues, epsilon, depth, J),
        flow_rates.tied_exchanges(eigenvalues, epsilon, J),
        flow_rates.bures_wasserstein_filling(eigenvalues, epsilon, J),
        depth,
        rank - len(J),
    )
    return float(2 * rates.min())


# --- What holds along a whole run -------------------------------------------------------------------------------


def global_rate(
    eigenvalues: ArrayLike, epsilon: float, depth: int, least_singular_value: float, rank: int | None = None
) -> float:
    """Proved rate of the balanced flow on the BW loss: L(t) ≤ L(0) exp(−rate · t), at every time (paper.md section 8).

    For k = n it is 4 N m^{2−1/N}/(m + ε) with m = min(σ_n(W(0))², λ_n − ε), and 0 where m ≤ 0. It is the sharp
    rate where σ_n(W(0))² ≥ λ_n − ε. For ε = 0, N = 1 it is 4. No margin is needed. For k < n it is NaN: no bound
    on L − L* follows from σ_k(W(0)), because the flow rests at saddles of rank k. On a range that is spanned by
    eigenvectors the theorem holds with the eigenvalues of that range in place of the spectrum.

    Parameters
    ----------
    eigenvalues : (n,)
        λ_1 ≥ … ≥ λ_n.
    epsilon, depth
        ε ≥ 0, N ≥ 1.
    least_singular_value
        σ_n(W(0)).
    rank
        k; default n.
    """
    check_depth(depth)
    if rank is not None and rank < np.size(eigenvalues):
        return float("nan")
    return flow_rates.bures_wasserstein_global(eigenvalues, epsilon, depth, least_singular_value)


def frobenius_global_rate(
    eigenvalues: ArrayLike, depth: int, least_singular_value: float, rank: int | None = None
) -> float:
    """`global_rate` of the square loss: 16 N m^{2−1/N}, m = min(σ_n(W(0))², λ_n); NaN for k < n (section 8)."""
    check_depth(depth)
    if rank is not None and rank < np.size(eigenvalues):
        return float("nan")
    return flow_rates.frobenius_global(eigenvalues, depth, least_singular_value)


def loss_global_rate(loss: CovarianceLoss, depth: int, least_singular_value: float, rank: int | None = None) -> float:
    """The global rate of any loss; NaN where none is proved: for k < n, and for losses without one."""
    rate = None if rank is not None and rank < loss.dimension else loss.global_rate(depth, least_singular_value)
    return float("nan") if rate is None else rate


def global_bound(times: ArrayLike, loss_initial: float, rate: float) -> Array:
    """L(0) exp(−rate · t), the bound that `global_rate` proves on L(t) (L* = 0 there)."""
    return flow_bound(times, loss_initial, rate)


def singular_value_bounds(
    eigenvalues: ArrayLike, epsilon: float, least_singular_value: float, largest_singular_value: float
) -> tuple[float, float]:
    """m and M with m ≤ σ_n(W(t))² and σ_1(W(t))² ≤ M along the balanced flow, k = n (paper.md section 8).

    m = min(σ_n(W(0))², (λ_n − ε)_+), M = max(σ_1(W(0))², λ_1 − ε); they hold at any depth, and for descent on
    one layer with η ≤ ½. For ε = 0 they are those of the square loss as well.
    """
    optimum = soft_threshold(eigenvalues, epsilon)
    return flow_rates.retained(optimum, least_singular_value), float(max(largest_singular_value**2, optimum[0]))


def descent_global_rate(
    eigenvalues: ArrayLike,
    epsilon: float,
    depth: int,
    least_singular_value: float,
    step_size: float,
    rank: int | None = None,
) -> float:
    """Proved share of the loss that every step of descent takes: L(W⁺) ≤ (1 − share) L(W) (paper.md section 8).

    One layer, k = n, 0 < η ≤ ½: 4 η (1 − η) m/(m + ε), m = min(σ_n(W(0))², λ_n − ε); for ε = 0 it is 4 η (1 − η),
    and the contraction (1 − 2η)². NaN for N ≥ 2, for k < n and for other η, where nothing is proved.
    """
    if depth != 1 or not 0 < step_size <= 0.5:
        return float("nan")
    return step_size * (1 - step_size) * global_rate(eigenvalues, epsilon, 1, least_singular_value, rank)


def bound_is_proved(margin: float, epsilon: float, eigenvalues: ArrayLike, least_singular_value: float) -> bool:
    """Whether the program's bound on the flow follows from the global rate, for k = n (paper.md section 8).

    It does where W(0) and the minimiser keep the margin: 0 < c, c² ≤ min(σ_n(W(0))², λ_n − ε), at any depth. For ε = 0
    its rate is 0, and it holds wherever c > 0.
    """
    optimum = soft_threshold(eigenvalues, epsilon)
    return bool(margin > 0 and (epsilon == 0 or margin**2 <= flow_rates.retained(optimum, least_singular_value)))


def algebraic_tail(times: ArrayLike, least_eigenvalue: float, depth: int, multiplicity: int = 1) -> Array:
    """L − L* where ε = λ_n, k = n, late: g/(4 λ_n) · ((4N−2) t/λ_n)^{−2N/(2N−1)} (paper.md section 9).

    From ds/dt ≈ −2N s^{3−1/N}/λ_n and L − L* ≈ s²/(4 λ_n) for each of the g directions with λ_j = ε.
    """
    check_depth(depth)
    N = depth
    scaled = (4 * N - 2) * np.asarray(times, dtype=float) / least_eigenvalue
    return multiplicity / (4 * least_eigenvalue) * scaled ** (-2 * N / (2 * N - 1))


# --- Aligned starts ---------------------------------------------------------------------------------------------


def mode_times(eigenvalue: float, epsilon: float, depth: int, s_initial: ArrayLike, s_final: ArrayLike) -> Array:
    """Time in which one mode of an aligned start goes from s_initial to s_final (paper.md section 9).

    Where S commutes with Σ0, ds/dt = 4 N s^{2−1/N} (√(λ/(s + ε)) − 1), with the limit s* = (λ − ε)_+. The integral of
    ds/(ds/dt) is taken by Gauss-Legendre panels in log s or, next to s*, in log |s − s*|: to a relative 1e-12.

    Parameters
    ----------
    eigenvalue, epsilon, depth
        λ > 0, ε ≥ 0, N ≥ 1.
    s_initial, s_final
        Eigenvalues of S > 0, broadcast against each other. s_final lies between s_initial and s*; at s* itself the
        time is infinite.

    Raises
    ------
    ValueError
        Where s_initial is not positive or s_final is not on the way from it to s*.
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
    """When each mode of an aligned start reaches half of its limit, (k,): the ends of the plateaus of the loss.

    A small aligned start passes the levels Σ_{j>i} (√λ_j − √ε)² one by one; level i lasts from the half-time of mode
    i to that of mode i + 1. `s_initial` holds the eigenvalues of S(0) along the k first directions, or one number.
    0 where a mode starts beyond its half, infinite where it is not learnt (λ_j ≤ ε).
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


def _mode_time(eigenvalue: float, epsilon: float, depth: int, start: float, end: float) -> float:
    signed_limit = eigenvalue - epsilon
    limit = max(signed_limit, 0.0)
    if start == end:
        return 0.0
    if end == limit:
        return float("inf")

    def slowness(s: Array, gap: Array) -> Array:
        """1/|ds/dt|, with the gap |s − (λ − ε)| as it is: √(λ/(s+ε)) − 1 = (λ − ε − s)/((s+ε) (1 + √(λ/(s+ε))))."""
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


def expected_sampling_error(eigenvalues: ArrayLike, samples: int) -> float:
    """E B²(Σ̂, Σ0) of the covariance of m Gaussian samples with known mean, to first order in 1/m (paper.md section 9).

    (1/m) Σ_ij λ_i λ_j (1 + δ_ij)/(2 (λ_i + λ_j)). Directions without variance add nothing. Where the mean is
    estimated, too, it is m − 1.
    """
    if not samples >= 1:
        raise ValueError(f"samples must be at least 1, not {samples}")
    values = np.asarray(eigenvalues, dtype=float)
    values = values[values > 0]
    harmonic = values[:, None] * values / (2 * (values[:, None] + values))
    return float((harmonic.sum() + np.trace(harmonic)) / samples)
