"""M^{-1/2} for M = D + Y Yᵀ, D diagonal and Y tall: a sum of resolvents, at a cost linear in n.

For μ in [a, b], 0 < a, the substitution s = √a sc(u | 1 − a/b) in μ^{-1/2} = (2/π) ∫ ds / (μ + s²) and the midpoint
rule with m points give (Hale, Higham and Trefethen 2008, SIAM J. Numer. Anal. 46(5), method 3; paper.md section 11)

    μ^{-1/2} ≈ Σ_j w_j / (μ + τ_j),    τ_j = a sc²(u_j),    w_j = (2K'/(π m)) √a dc(u_j) nc(u_j),    u_j = (j − ½) K'/m,

K' = K(1 − a/b) and K = K(a/b) the complete elliptic integrals of these parameters. The integrand has the period 2K' and
changes its sign over 2iK; its only poles in between lie on Im u = K, at ±v + iK for some v in [0, K']. So its
Fourier coefficients are known, and with them the whole relative error (ours):

    √μ Σ_j w_j / (μ + τ_j) − 1 = 2 Σ_{l≥1} (−1)^l cos(2π l m v/K') / cosh(2π l m K/K'),

at most 4 q/(1 − q) with q = exp(−2π m K/K'), uniformly in μ. As K ≈ π/2 and K' ≈ ½ log(16 b/a) where b/a is large,
the number of points grows with the logarithm of the condition.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .psd import Array

#: Above this condition number of G = I + Yᵀ E Y the factor is orthonormalised twice: a single time leaves an error of
#: eps times the condition number.
_ONCE = 100.0
#: The inverse of a scaled G is accepted if its entries are at most eps to this power: 1,350 in float64.
_WELL_CONDITIONED = -0.2


def inverse_root_rule(least: float, largest: float, accuracy: float) -> tuple[Array, Array]:
    """Quadrature μ^{-1/2} ≈ Σ_j w_j / (μ + τ_j) over least ≤ μ ≤ largest, of a relative error ≤ `accuracy`.

    It has the fewest points for which the bound 4 q/(1 − q) of the module's docstring is at most `accuracy`; rounding
    adds a few eps.

    Returns
    -------
    shifts, weights : (m,)
        τ_j > 0, increasing, and w_j > 0.

    Raises
    ------
    ValueError
        Unless 0 < least ≤ largest, both finite, and accuracy > 0.
    """
    from scipy.special import ellipk, ellipkm1

    if not 0 < least <= largest < np.inf or not accuracy > 0:
        raise ValueError(
            f"an inverse root needs 0 < least ≤ largest < ∞ and accuracy > 0, not {least}, {largest}, {accuracy}"
        )
    ratio = min(least / largest, 0.5)  # use a wider interval where the series would be long
    K, period = float(ellipk(ratio)), float(ellipkm1(ratio))
    points = max(1, int(np.ceil(np.log1p(4 / accuracy) * period / (2 * np.pi * K))))
    u = (np.arange((points + 1) // 2) + 0.5) * period / points  # up to K'/2, the others by symmetry
    sc, slope = _scaled_tangent(u, ratio, K, period)
    shifts, weights = least * sc**2, 2 * period / (np.pi * points) * np.sqrt(least) * slope
    mirror = 1 / (np.sqrt(ratio) * sc[: points // 2] ** 2)  # τ_{m+1−j} = a b/τ_j, w_{m+1−j} = w_j √(a b)/τ_j
    return (
        np.concatenate([shifts, (shifts[: len(mirror)] * mirror**2)[::-1]]),
        np.concatenate([weights, (weights[: len(mirror)] * mirror)[::-1]]),
    )


def _scaled_tangent(u: Array, ratio: float, K: float, period: float) -> tuple[Array, Array]:
    """sc(u | 1 − ratio) and its derivative dc nc for 0 < u ≤ K'/2, to rounding at any ratio ≤ ½.

    From sc(u | 1 − k²) = −i sn(iu | k²) and the Fourier series of sn in the nome (DLMF 22.11.1). The argument of
    scipy's ellipj is 1 − ratio, in which a ratio below eps is lost.
    """
    log_nome = -np.pi * period / K
    odd = 2 * np.arange(2 + int(-80 / log_nome))[:, None] + 1
    coefficients = 2 * np.pi / (np.sqrt(ratio) * K) * np.exp(odd / 2 * log_nome) / -np.expm1(odd * log_nome)
    frequency = odd * np.pi / (2 * K)
    sc = np.sum(coefficients * np.sinh(frequency * u), axis=0)
    return sc, np.sum(coefficients * frequency * np.cosh(frequency * u), axis=0)


@dataclass(frozen=True)
class Resolvent:
    """(M + τI)^{-1} = diag(e) − A Aᵀ of M = D + Y Yᵀ, and (M + τI)^{-1} Y = A Cᵀ.

    With E = (D + τ)^{-1} and [E^{1/2} Y; I] = Q R, where the rows of Q split into Q_1 (n × k) and Q_2 (k × k), they are
    e = diag E, A = E^{1/2} Q_1 and C = Q_2 (the push-through identity, without a solve). A is stored transposed, as
    Aᵀ (k, n), so that products run along contiguous rows.

    Attributes
    ----------
    weight
        w of the quadrature.
    diagonal : (n,)
        e.
    outer : (k, n)
        Aᵀ.
    inner : (k, k)
        C.
    """

    weight: float
    diagonal: Array
    outer: Array
    inner: Array


def resolvents(D: Array, Yt: Array, accuracy: float) -> Iterator[Resolvent]:
    """The resolvents, with weights w_j, of which Σ_j w_j (M + τ_j)^{-1} = M^{-1/2} for M = D + Y Yᵀ, one by one.

    Each overwrites the array `outer` of the previous one: allocating k × n arrays would take a fifth of the time of a
    gradient at n = 3,072.

    Parameters
    ----------
    D : (n,)
        Positive diagonal.
    Yt : (k, n)
        Yᵀ, with contiguous rows.
    accuracy
        Largest relative error a of the quadrature, (1 − a) M^{-1/2} ⪯ Σ_j w_j (M + τ_j)^{-1} ⪯ (1 + a) M^{-1/2}.

    Notes
    -----
    Each costs two or three products of k × n and k × k matrices and one or two eigh of k × k matrices:
    [E^{1/2} Y; I] V γ^{-1/2} is orthonormal for G = I + Yᵀ E Y = V γ Vᵀ. Where G is not well conditioned the result is
    orthonormalised once more, as in CholeskyQR2 (Yamamoto, Nakatsukasa, Yanagisawa and Fukaya 2015, ETNA 44: as exact
    as Householder's QR up to a condition of 1/eps of G).
    Where Yᵀ E Y is so large that I is lost beside it, the singular values of E^{1/2} Y replace G.
    """
    k, identity = len(Yt), np.eye(len(Yt), dtype=Yt.dtype)
    eps = float(np.finfo(Yt.dtype).eps)
    shifts, weights = _rule_of(D, Yt, accuracy)
    stacked, outer, spare = np.empty_like(Yt), np.empty_like(Yt), np.empty_like(Yt)
    for shift, weight in zip(shifts.tolist(), weights.tolist(), strict=True):
        diagonal = 1 / (D + shift)
        root = np.sqrt(diagonal)
        np.multiply(Yt, root, out=stacked)
        gram = identity + stacked @ stacked.T
        size = float(np.trace(gram))
        if size * eps < 0.01:
            inner = _inverse_root(gram)
            np.matmul(inner.T, stacked, out=outer)
            if size > _ONCE * k:
                again = _inverse_root(outer @ outer.T + inner.T @ inner)
                inner = inner @ again
                np.matmul(again.T, outer, out=spare)
                outer, spare = spare, outer
        else:
            V, s, Ut = np.linalg.svd(stacked, full_matrices=False)
            np.multiply((s / np.sqrt(1 + s**2))[:, None], Ut, out=outer)
            inner = V / np.sqrt(1 + s**2)
        outer *= root
        yield Resolvent(weight, diagonal, outer, inner)


def inverse_root_product(D: Array, Yt: Array, accuracy: float) -> Array:
    """(M^{-1/2} Y)ᵀ for M = D + Y Yᵀ, (k, n), by two matrix products for all points of the quadrature together.

    Row i of M^{-1/2} Y is y_iᵀ Σ_j w_j e_j(i) G_j^{-1}, e_j = 1/(D + τ_j), G_j = I + Yᵀ diag(e_j) Y. The product of e
    with the k(k+1)/2 products of columns of Y gives all G_j, and a second one the sums over j. This takes a third of
    the operations of `resolvents`, which replace it where some G_j is ill conditioned even after scaling its diagonal
    to 1.

    Parameters
    ----------
    D, Yt, accuracy
        As for `resolvents`.
    """
    (k, n), eps = Yt.shape, float(np.finfo(Yt.dtype).eps)
    shifts, weights = _rule_of(D, Yt, accuracy)
    e = 1 / (D + shifts.astype(Yt.dtype)[:, None])  # (m, n)
    firsts = np.cumsum([0, *range(k, 0, -1)])  # of the pairs (a, a), …, (a, k − 1)
    pairs = np.empty((firsts[-1], n), dtype=Yt.dtype)
    for a in range(k):
        np.multiply(Yt[a:], Yt[a], out=pairs[firsts[a] : firsts[a + 1]])
    rows, columns = np.triu_indices(k)
    gram = np.empty((len(e), k, k), dtype=Yt.dtype)
    gram[:, rows, columns] = gram[:, columns, rows] = e @ pairs.T
    gram += np.eye(k, dtype=Yt.dtype)
    d = np.sqrt(np.diagonal(gram, axis1=-2, axis2=-1))
    scale = d[:, :, None] * d[:, None, :]
    try:
        lower = np.linalg.cholesky(gram / scale)
    except np.linalg.LinAlgError:
        return _by_resolvents(D, Yt, accuracy)
    half = np.linalg.solve(lower, np.eye(k, dtype=Yt.dtype))
    inverse = half.mT @ half
    if not np.abs(inverse).max() <= eps**_WELL_CONDITIONED:  # NaN: no
        return _by_resolvents(D, Yt, accuracy)
    inverse *= weights.astype(Yt.dtype)[:, None, None] / scale
    np.matmul(np.ascontiguousarray(inverse[:, rows, columns].T), e, out=pairs)
    product = np.zeros_like(Yt)
    for a in range(k):
        row = pairs[firsts[a] : firsts[a + 1]]  # K_ab(i), b ≥ a
        product[a] += np.einsum("bi,bi->i", row, Yt[a:])
        product[a + 1 :] += row[1:] * Yt[a]
    return product


def _by_resolvents(D: Array, Yt: Array, accuracy: float) -> Array:
    """(M^{-1/2} Y)ᵀ = Σ_j w_j C_j A_jᵀ from the resolvents, which holds for any condition of M."""
    product, term = np.zeros_like(Yt), np.empty_like(Yt)
    for part in resolvents(D, Yt, accuracy):
        np.matmul(part.weight * part.inner, part.outer, out=term)
        product += term
    return product


def _rule_of(D: Array, Yt: Array, accuracy: float) -> tuple[Array, Array]:
    """The quadrature for the spectrum of M."""
    energy = float(np.linalg.eigvalsh(Yt @ Yt.T)[-1])
    return inverse_root_rule(float(D.min()), float(D.max()) + max(energy, 0.0), accuracy)


def _inverse_root(gram: Array) -> Array:
    """V γ^{-1/2} of a well-conditioned G = V γ Vᵀ: B V γ^{-1/2} has orthonormal columns for Bᵀ B = G."""
    values, vectors = np.linalg.eigh(gram)
    return vectors / np.sqrt(values)
