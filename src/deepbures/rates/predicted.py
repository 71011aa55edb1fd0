"""Rates predicted for a run: local rates at the minimum, global rates from the start, and the bounds that follow.

Sections refer to paper.md, which names the source of each statement. Measured rates are in `measured`, closed forms in
terms of spectra in `closed_form_rates`.
"""

import numpy as np
from numpy.typing import ArrayLike

from ..linalg.psd import Array
from ..losses import closed_form_rates
from ..losses.registry import BuresWasserstein, CovarianceLoss
from ..model.network import check_depth


def flow_bound(times: ArrayLike, excess_initial: float, rate: float) -> Array:
    """(L(0) − L*) exp(−rate · t), with the rate 8 N c^{2(2N−1)/N} K of the program (section 4), or the global rate."""
    return excess_initial * np.exp(-rate * np.asarray(times))


def local_rates(
    eigenvalues: Array, epsilon: float, depth: int, rank: int | None = None, kept: ArrayLike | None = None
) -> tuple[Array, Array]:
    """In-block and off-block rates at a critical point W_J of the BW loss: negative in directions of escape.

    With s_a = λ_a − ε, in-block: 2 (s_a + s_b)/(λ_a + λ_b) · (s_a − s_b)/(s_a^{1/N} − s_b^{1/N}) for a ≤ b in J, and
    off-block: 2 s_a^{1−1/N} (λ_a − λ_b)/(λ_a + √(ε λ_b)) for a in J, b not. J is {1..k}, the minimum, or `kept`,
    indices from 0; k is n by default. Shapes and errors: `closed_form_rates.bures_wasserstein`.
    """
    J = np.arange(rank or len(eigenvalues)) if kept is None else kept
    return closed_form_rates.bures_wasserstein(eigenvalues, epsilon, depth, J)


def rates_at_minimum(loss: CovarianceLoss, depth: int, rank: int | None = None) -> Array:
    """All local rates r at the minimum over rank ≤ k, without the zeros of directions along which the loss is constant.

    With r the rank of the minimum: r (r+1)/2 in-block; r (n−r) off-block, less one for each exchange of equal
    eigenvalues across the edge k, which moves along a manifold of minima; and (k−r) (n−r) of empty columns where
    r < k (ε ≥ λ_k, or k beyond the rank of the target): for N ≥ 2 those are 0, and the decay is algebraic.
    k (k+1)/2 + k (n−k) times NaN for a loss without a closed form.

    Those that are not 0 are also the non-zero eigenvalues of the Hessian of the deep loss at the balanced minimum:
    Jᵀ ∇²L J and J Jᵀ ∇²L have the same ones, and the range of Jᵀ is tangent to the balanced weights.
    """
    eigenvalues, rank = loss.eigenvalues, rank or loss.dimension
    J = np.flatnonzero(loss.minimum_spectrum(rank) > 0)
    rates, filling = loss.local_rates(depth, J), loss.filling_rates(depth, J)
    if rates is None or filling is None:
        return np.full(rank * (rank + 1) // 2 + rank * (loss.dimension - rank), np.nan)
    tied = closed_form_rates.tied_exchanges(eigenvalues, float(loss.epsilon), J)
    return closed_form_rates.nonzero_by_symmetry(rates, tied, filling, rank - len(J))


def local_condition(loss: CovarianceLoss, depth: int, rank: int | None = None) -> float:
    """max r/min r over the `rates_at_minimum`: the condition number of descent near the minimum.

    ε = 0, k = n: (λ_1/λ_n)^{1−1/N} for the BW loss, (λ_1/λ_n)^{2−1/N} for the square loss (paper.md section 9).
    Infinite where min r = 0, NaN where no closed form is known.
    """
    rates = rates_at_minimum(loss, depth, rank)
    least = float(rates.min())
    return float(rates.max()) / least if least != 0 else float("inf")


def stable_step(rates: Array) -> float:
    """2/max r: gradient descent with this step size or a larger one cannot stay at the minimum with these local rates.

    max r is the largest eigenvalue of the Hessian of the deep loss at the balanced minimum; for ε = 0, k = n it is
    2 N λ_1^{1−1/N}, and the largest stable step 1/(N λ_1^{1−1/N}).
    """
    largest = float(rates.max())
    return 2 / largest if largest != 0 else float("inf")


def descent_contraction(rates: Array, step_size: float) -> float:
    """max_r (1 − η r)², the factor by which a step finally multiplies L − L* near the minimum with these rates."""
    return float(np.max((1 - step_size * rates) ** 2))


def sharp_rate(eigenvalues: Array, epsilon: float, depth: int, rank: int | None = None) -> float:
    """Exact asymptotic decay rate of the excess BW loss at the minimum: L(t) − L* ~ exp(−sharp_rate · t).

    Twice the smallest of the local rates, without exchanges of equal eigenvalues; 4 N λ_n^{1−1/N} for ε = 0, k = n.
    It is 0 where the decay is slower than exponential: for ε = λ_k, or for N ≥ 2 if fewer than k of the λ_j exceed ε.
    """
    return float(2 * rates_at_minimum(BuresWasserstein.from_spectrum(eigenvalues, epsilon=epsilon), depth, rank).min())


# --- Bounds along a whole run -----------------------------------------------------------------------------------


def global_rate(
    eigenvalues: ArrayLike, epsilon: float, depth: int, least_singular_value: float, rank: int | None = None
) -> float:
    """Proved rate of the balanced flow on the BW loss: L(t) ≤ L(0) exp(−rate · t), at every time (paper.md section 8).

    For k = n it is 4 N m^{2−1/N}/(m + ε) with m = min(σ_n(W(0))², λ_n − ε), and 0 if m ≤ 0. It equals the sharp
    rate if σ_n(W(0))² ≥ λ_n − ε. For ε = 0, N = 1 it is 4. No margin is needed. For k < n it is NaN: no bound
    on L − L* follows from σ_k(W(0)), because the flow rests at saddles of rank k. On a range spanned by
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
    return closed_form_rates.bures_wasserstein_global(eigenvalues, epsilon, depth, least_singular_value)


def loss_global_rate(loss: CovarianceLoss, depth: int, least_singular_value: float, rank: int | None = None) -> float:
    """The `global_rate` of any loss; NaN where none is proved: for k < n, and for a loss that has none."""
    rate = None if rank is not None and rank < loss.dimension else loss.global_rate(depth, least_singular_value)
    return float("nan") if rate is None else rate


def global_bound(times: ArrayLike, loss_initial: float, rate: float) -> Array:
    """L(0) exp(−rate · t), the bound that `global_rate` proves on L(t) (L* = 0 there)."""
    return flow_bound(times, loss_initial, rate)


def descent_global_rate(
    eigenvalues: ArrayLike,
    epsilon: float,
    depth: int,
    least_singular_value: float,
    step_size: float,
    rank: int | None = None,
) -> float:
    """Fraction q by which every step of descent reduces the loss at least, L(W⁺) ≤ (1 − q) L(W) (paper.md section 8).

    One layer, k = n, 0 < η ≤ ½: q = 4 η (1 − η) m/(m + ε), m = min(σ_n(W(0))², λ_n − ε); for ε = 0 it is 4 η (1 − η),
    so that the contraction is (1 − 2η)². NaN for N ≥ 2, for k < n and for other η, where nothing is proved.
    """
    if depth != 1 or not 0 < step_size <= 0.5:
        return float("nan")
    return step_size * (1 - step_size) * global_rate(eigenvalues, epsilon, 1, least_singular_value, rank)


def algebraic_tail(times: ArrayLike, least_eigenvalue: float, depth: int, multiplicity: int = 1) -> Array:
    """L − L* late in a run with ε = λ_n, k = n: g/(4 λ_n) · ((4N−2) t/λ_n)^{−2N/(2N−1)} (paper.md section 9).

    It follows from ds/dt ≈ −2N s^{3−1/N}/λ_n and L − L* ≈ s²/(4 λ_n) for each of the g directions with λ_j = ε.
    """
    check_depth(depth)
    N = depth
    scaled = (4 * N - 2) * np.asarray(times, dtype=float) / least_eigenvalue
    return multiplicity / (4 * least_eigenvalue) * scaled ** (-2 * N / (2 * N - 1))
