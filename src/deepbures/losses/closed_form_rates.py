"""Rates of the reduced flow in closed form, from spectra: local rates at critical points, global ones along a run.

Eigenvalues that agree to rounding count as equal (`psd.equalized`). The argument `kept` is J, the indices (from 0) of
the directions that a critical point W_J retains.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..linalg.powers import geometric_sum
from ..linalg.psd import Array, equalized, soft_threshold


def bures_wasserstein(eigenvalues: ArrayLike, epsilon: float, depth: int, kept: ArrayLike) -> tuple[Array, Array]:
    """In-block and off-block rates at W_J for the BW loss (paper.md section 4, ours).

    In-block, a ≤ b in J: r_ab = 2 (s_a + s_b)/(λ_a + λ_b) · P_ab, P_ab = (s_a − s_b)/(s_a^{1/N} − s_b^{1/N});
    off-block, a in J, b not: r_ab = 2 s_a^{1−1/N} (λ_a − λ_b)/(λ_a + √(ε λ_b)), with s_a = λ_a − ε.

    Returns
    -------
    in_block : (|J| (|J|+1)/2,)
    off_block : (|J| (n−|J|),)
        Row by row; exactly 0 between equal eigenvalues. Where λ_a = ε = 0 and N = 1 the column is empty, and the rate
        is −∞ for λ_b > 0 (the loss has a kink) and 2 for λ_b = 0.

    Raises
    ------
    ValueError
        If ε exceeds some λ_a with a in J.
    """
    inside, outside = _kept_and_not(equalized(eigenvalues, epsilon), kept)
    if np.any(inside < epsilon):
        raise ValueError(
            f"epsilon must not exceed the kept eigenvalues, whose least is {inside.min():.6g}, not {epsilon}"
        )
    s = inside - epsilon
    a, b = np.triu_indices(len(s))
    total = inside[a] + inside[b]
    ratio = np.divide(s[a] + s[b], total, out=np.ones_like(total), where=total > 0)  # 1 for ε = 0
    in_block = 2 * ratio * _divided_differences(s, depth)
    difference = inside[:, None] - outside
    scale = inside[:, None] + np.sqrt(epsilon * outside)
    pull = np.where(outside > 0, -np.inf, 1.0) * np.ones_like(difference)
    np.divide(difference, scale, out=pull, where=scale > 0)
    power = (s ** (1 - 1 / depth))[:, None]
    off_block = 2 * np.multiply(power, pull, out=np.zeros_like(pull), where=power > 0)
    return in_block, off_block.ravel()


def bures_wasserstein_excess(eigenvalues: ArrayLike, epsilon: float, S: Array) -> tuple[Array, Array]:
    """Excess loss L − L* near the minimum of rank k, split among the directions of local decay, from rows of S.

    To second order and with s_a = λ_a − ε > 0 (ours): in the block of the k retained directions L is the squared Bures
    distance of S + εI from Σ0, (S − S*)_ab²/(λ_a + λ_b) for a < b and half of that for a = b. A retained direction a
    that leans towards an empty one b adds (λ_a − λ_b)/(λ_a + √(ε λ_b)) · S_ab²/s_a.

    Parameters
    ----------
    eigenvalues : (n,)
    epsilon
        ε < λ_k.
    S : (k, n)
        The first k rows of S = W Wᵀ in the eigenbasis of the target.

    Returns
    -------
    in_block : (k (k+1)/2,)
    off_block : (k (n−k),)
        In the order of `bures_wasserstein`.
    """
    rank, values = len(S), np.asarray(eigenvalues)
    inside, outside = values[:rank], values[rank:]
    s = inside - epsilon
    a, b = np.triu_indices(rank)
    difference = S[:, :rank] - np.diag(s)
    in_block = difference[a, b] ** 2 / (inside[a] + inside[b]) * np.where(a == b, 0.5, 1.0)
    weight = (inside[:, None] - outside) / (inside[:, None] + np.sqrt(epsilon * outside)) / s[:, None]
    return in_block, (weight * S[:, rank:] ** 2).ravel()


def bures_wasserstein_filling(eigenvalues: ArrayLike, epsilon: float, depth: int, kept: ArrayLike) -> Array:
    """Rates of an empty column z of Z, < 0 where it grows, in each direction b not in J (paper.md section 4).

    With S_bb = z^{2N} the loss changes by ε > 0: (1 − √(λ_b/ε)) z^{2N}; ε = 0: z^{2N} − 2 √λ_b z^N. Hence for ε > 0:
    2 (1 − √(λ_b/ε)) at N = 1 and 0 at N ≥ 2; for ε = 0: −∞ at N = 1, where W_J is not stationary (2 if λ_b = 0, where
    it is), −2 √λ_b at N = 2 and 0 at N ≥ 3. Source: ours.

    Returns
    -------
    filling : (n−|J|,)
        Per unit time, one for each b.
    """
    _, outside = _kept_and_not(equalized(eigenvalues, epsilon), kept)
    if epsilon > 0:
        return 2 * (1 - np.sqrt(outside / epsilon)) if depth == 1 else np.zeros_like(outside)
    if depth == 1:
        return np.where(outside > 0, -np.inf, 2.0)
    return 0.0 - 2 * np.sqrt(outside) if depth == 2 else np.zeros_like(outside)


def frobenius(eigenvalues: ArrayLike, depth: int, kept: ArrayLike) -> tuple[Array, Array]:
    """In-block and off-block rates at W_J for the square loss (paper.md section 5, ours).

    In-block, a ≤ b in J: r_ab = 4 (λ_a + λ_b) P_ab, P_ab = (λ_a − λ_b)/(λ_a^{1/N} − λ_b^{1/N});
    off-block, a in J, b not: r_ab = 4 λ_a^{1−1/N} (λ_a − λ_b).
    """
    inside, outside = _kept_and_not(equalized(eigenvalues), kept)
    a, b = np.triu_indices(len(inside))
    in_block = 4 * (inside[a] + inside[b]) * _divided_differences(inside, depth)
    off_block = 4 * (inside ** (1 - 1 / depth))[:, None] * (inside[:, None] - outside)
    return in_block, off_block.ravel()


def frobenius_filling(eigenvalues: ArrayLike, depth: int, kept: ArrayLike) -> Array:
    """−4 λ_b at N = 1 and 0 at N ≥ 2, b not in J: rates of an empty column in direction b for the square loss."""
    _, outside = _kept_and_not(equalized(eigenvalues), kept)
    return 0.0 - 4 * outside if depth == 1 else np.zeros_like(outside)


def tied_exchanges(eigenvalues: ArrayLike, epsilon: float, kept: ArrayLike) -> NDArray[np.bool_]:
    """Mask of the entries of `off_block` that exchange a direction of J for one of equal eigenvalue, (|J| (n−|J|),).

    Such an exchange moves along a manifold of critical points with the same loss. Its rate 0 is no rate of decay.
    """
    inside, outside = _kept_and_not(equalized(eigenvalues, epsilon), kept)
    tied = (inside[:, None] == outside) & (inside > epsilon)[:, None]
    return tied.ravel()


def nonzero_by_symmetry(
    rates: tuple[Array, Array], tied: NDArray[np.bool_], filling: Array, empty_columns: int
) -> Array:
    """In-block rates, off-block rates without tied exchanges, and the rates of empty columns at a critical point.

    Each of the empty columns has the rates `filling`.
    """
    in_block, off_block = rates
    return np.concatenate([in_block, off_block[~tied], np.tile(filling, empty_columns)])


def bures_wasserstein_global(eigenvalues: ArrayLike, epsilon: float, depth: int, least_singular_value: float) -> float:
    """4 N m^{2−1/N}/(m + ε), m = min(σ_n(W(0))², λ_n − ε), for k = n: L(t) ≤ L(0) exp(−rate · t) (paper.md section 8).

    0 where m ≤ 0. For ε = 0 and N = 1 it is 4 for every W(0) of full rank, even where λ_n = 0.
    """
    if least_singular_value > 0 and depth == 1 and epsilon == 0:
        return 4.0
    m = retained(soft_threshold(eigenvalues, epsilon), least_singular_value)
    return 4 * depth * m ** (2 - 1 / depth) / (m + epsilon) if m > 0 else 0.0


def frobenius_global(eigenvalues: ArrayLike, depth: int, least_singular_value: float) -> float:
    """16 N m^{2−1/N}, m = min(σ_n(W(0))², λ_n), for k = n: L(t) ≤ L(0) exp(−rate · t) (paper.md section 8)."""
    return 16 * depth * retained(np.asarray(eigenvalues, dtype=float), least_singular_value) ** (2 - 1 / depth)


def bures_wasserstein_dominance(eigenvalues: ArrayLike, epsilon: float, rank: int, excess: float) -> float:
    """γ with ‖∇L_ε(W)‖² ≥ 4 γ (L − L*) at every W of rank k < n whose L − L* is at most E (paper.md section 8, ours).

    ε = 0: γ = 1 − λ_{k+1}/(λ_k − E), for E < λ_k − λ_{k+1}. 0 < ε ≤ λ_n: with h_j = `raised` eigenvalue λ_j at the
    cost E, κ = λ_k + λ_n − h_n, σ = `kept_singular_value`, χ = √(ε h_{k+1})/√(κ (σ² + ε)), ψ = (1 − √(ε/h_{k+1}))_+,
    1/γ = ε/σ² + (1 + ε/σ²) (1 + ψ ((1 + χ)²/(1 − λ_{k+1}/κ) − 1)), for κ > λ_{k+1}.

    Parameters
    ----------
    eigenvalues : (n,)
        λ_1 ≥ … ≥ λ_n ≥ 0.
    epsilon, rank
        ε ≥ 0, and k < n.
    excess
        E ≥ 0, in the unit of λ.

    Returns
    -------
    dominance
        0 from the threshold on, E = λ_k − λ_{k+1} for ε = 0; NaN for ε > λ_n > 0, where nothing explicit is proved.
    """
    spectrum = equalized(eigenvalues, epsilon)
    kept, leading, least = (float(spectrum[j]) for j in (rank - 1, rank, -1))
    if epsilon > 0 and epsilon > least:
        return float("nan")
    edge = float(raised(leading, epsilon, excess))
    kappa = kept - (float(raised(least, epsilon, excess)) - least)
    smallest = kept_singular_value(spectrum, epsilon, rank, excess) ** 2
    if kappa <= leading or smallest == 0:
        return 0.0
    share = 1 - leading / kappa
    if epsilon == 0:
        return share
    psi = max(1 - np.sqrt(epsilon / edge), 0.0)
    chi = np.sqrt(epsilon * edge / (kappa * (smallest + epsilon)))
    blur = epsilon / smallest
    return float(1 / (blur + (1 + blur) * (1 + psi * ((1 + chi) ** 2 / share - 1))))


def raised(eigenvalue: ArrayLike, epsilon: float, excess: float) -> Array:
    """h ≥ λ with (√h − √ε)² − (√λ − √ε)² = E, for λ ≥ ε: how far a cost E raises an eigenvalue of the complement.

    h = λ + E + 2 √ε E/(√(E + b²) + b), b = √λ − √ε, without cancellation; λ + E for ε = 0.
    """
    value, root = np.asarray(eigenvalue, dtype=float), np.sqrt(epsilon)
    b = np.sqrt(value) - root
    scale = np.sqrt(excess + b**2) + b
    return value + excess + 2 * root * np.divide(excess, scale, out=np.zeros_like(scale), where=scale > 0)


def kept_singular_value(eigenvalues: ArrayLike, epsilon: float, rank: int, excess: float) -> float:
    """A lower bound on σ_k(W) at every W of rank k < n whose L_ε − L* is at most E, ε ≤ λ_n (paper.md section 8, ours).

    The larger of √λ_k − √ε − √E and ((√κ − √E)² − ε)^{1/2}, κ = λ_k + λ_n − h_n with h_n the `raised` λ_n; 0 where both
    are negative. For ε = 0 it is √λ_k − √E.
    """
    spectrum = equalized(eigenvalues, epsilon)
    kept, least = float(spectrum[rank - 1]), float(spectrum[-1])
    kappa = max(kept - (float(raised(least, epsilon, excess)) - least), 0.0)
    by_factor = max(np.sqrt(kept) - np.sqrt(epsilon) - np.sqrt(excess), 0.0)
    by_compression = max(max(np.sqrt(kappa) - np.sqrt(excess), 0.0) ** 2 - epsilon, 0.0)
    return float(max(by_factor, np.sqrt(by_compression)))


def bures_wasserstein_global_low_rank(
    eigenvalues: ArrayLike, epsilon: float, depth: int, rank: int, excess: float
) -> float:
    """4 σ^{2−2/N} γ with E_0 = L(0) − L*, k < n: L(t) − L* ≤ E_0 exp(−rate · t) along the balanced flow (paper.md 8).

    γ is the `bures_wasserstein_dominance` and σ the `kept_singular_value` at E_0. ε = 0:
    4 (√λ_k − √E_0)^{2−2/N} (1 − λ_{k+1}/(λ_k − E_0)); 0 from E_0 = λ_k − λ_{k+1} on.
    """
    dominance = bures_wasserstein_dominance(eigenvalues, epsilon, rank, excess)
    if not dominance > 0:
        return dominance
    return 4 * kept_singular_value(eigenvalues, epsilon, rank, excess) ** (2 - 2 / depth) * dominance


def bures_wasserstein_hessian_bounds(eigenvalues: ArrayLike, epsilon: float) -> tuple[float, float]:
    """2 (1 − √(λ_1/ε)) and 2: between them lie all eigenvalues of ∇²L_ε(W), at every W (paper.md section 2, ours).

    For ε = 0 the lower one is −∞, as the curvature of matrices of low rank is not bounded.
    """
    largest = float(np.asarray(eigenvalues, dtype=float)[0])
    return (2 * (1 - np.sqrt(largest / epsilon)) if epsilon > 0 else -np.inf), 2.0


def retained(optimum: Array, least_singular_value: float) -> float:
    """m = min(σ_n(W(0))², s*_n): σ_n(W(t))² ≥ m along the balanced flow (paper.md section 8)."""
    return float(min(least_singular_value**2, optimum[-1]))


def _kept_and_not(eigenvalues: Array, kept: ArrayLike) -> tuple[Array, Array]:
    J = np.asarray(kept, dtype=int)
    return eigenvalues[J], np.delete(eigenvalues, J)


def _divided_differences(s: Array, depth: int) -> Array:
    """P_ab = (s_a − s_b)/(s_a^{1/N} − s_b^{1/N}) for a ≤ b; N s_a^{1−1/N} where s_a = s_b."""
    a, b = np.triu_indices(len(s))
    root = s ** (1 / depth)
    return geometric_sum(root[a], root[b], depth)
