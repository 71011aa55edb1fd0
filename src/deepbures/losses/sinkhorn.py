"""The Sinkhorn divergence between Gaussians: a smoothing that does not move the minimiser (docs/sinkhorn.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..linalg.powers import geometric_sum
from ..linalg.psd import Array, equalized
from . import closed_form_rates
from .base import CovarianceLoss, pairs
from .dense import of_rank
from .form import Form, Minimum
from .target import Target

#: The largest curvature of the loss, over all targets, σ and W: 2 √3 (√3/(2 + √3))^{1/2}.
HIGHEST_CURVATURE = float(2 * np.sqrt(3) * np.sqrt(np.sqrt(3) / (2 + np.sqrt(3))))
#: Terms of the series of `_log_remainder`, for |z| ≤ 1/3.
_TERMS = 1 / (2 * np.arange(17) + 3)
#: Y, s², s Zᵀ of F = Y s Zᵀ, and U, τ, τ Vᵀ of R F = U τ Vᵀ.
_Parts = tuple[tuple[Array, Array, Array], tuple[Array, Array, Array]]


class Sinkhorn(CovarianceLoss):
    """Sinkhorn divergence of blur σ between N(0, W Wᵀ) and N(0, Σ0).

    L_σ(W) = −tr φ(R S R) + ½ tr φ(S²) + ½ tr φ(Σ0²), with S = W Wᵀ, R = Σ0^{1/2}, φ(x) = d − σ² log(d + σ²) and
    d = √(4 x + σ⁴): the entropic transport cost without its bias (Janati, Muzellec, Peyré and Cuturi 2020; Mallasto,
    Gerolin and Minh 2021; del Barrio and Loubes 2020). As σ → 0 it tends to the squared Bures-Wasserstein distance.

    Parameters
    ----------
    covariance : (..., n, n) or Target
        Target Σ0, symmetric positive semidefinite; or a stack of targets.
    blur
        σ > 0, in the unit of W; one number.

    Raises
    ------
    ValueError
        On a covariance that is not symmetric positive semidefinite and finite, or σ that is not positive and finite.

    Notes
    -----
    Gradient: ∇L_σ(W) = 2 (f(S) − G) W, with f(S) = S φ'(S²), G = R φ'(R S R) R and φ'(x) = 2/(d + σ²). Both solve a
    quadratic equation, f S f + σ² f = S and G S G + σ² G = Σ0.

    Minimum over rank ≤ k: the eigenvalues s*_j = λ_j themselves for j ≤ k, for every σ, and L* = Σ_{j>k} ½ φ_0(λ_j²),
    φ_0(x) = φ(x) − φ(0). The critical points are those of the Bures-Wasserstein loss with ε = 0.
    """

    name = "sinkhorn"
    degree = 2
    label = "Sinkhorn"
    has_linear_part = True
    options: ClassVar[Mapping[str, Mapping[str, Any]]] = {"blur": {"exclusiveMinimum": 0}}

    def __init__(self, covariance: ArrayLike | Target, blur: float) -> None:
        super().__init__(covariance)
        if not 0 < blur < np.inf:
            raise ValueError(f"blur must be a finite number > 0, not {blur!r}")
        self.blur = float(blur)

    def on(self, target: Target, epsilon: ArrayLike) -> Sinkhorn:
        """The loss on another target."""
        return type(self)(target, self.blur)

    def normalized(self) -> Sinkhorn:
        """The loss of Σ0/λ_1 and σ/√λ_1, one target."""
        largest = float(self.eigenvalues[0])
        return type(self)(self.covariance / largest, self.blur / np.sqrt(largest))

    @property
    def unit(self) -> float:
        """tr Σ0, or the loss of W = 0 for σ so large that this is less; of one target."""
        return float(np.sum(self.empty_costs()))

    def make_form(self, columns: int, rank: int) -> Form:
        """From thin singular value decompositions of W and of R W: linear in n."""
        return _Thin(self.minimum_over(rank), columns, rank, self.blur**2)

    def minimum_spectrum(self, rank: int) -> Array:
        """s*_j = λ_j for j ≤ rank, 0 beyond: as for the Bures-Wasserstein loss with ε = 0."""
        return np.where(np.arange(self.dimension) < rank, self.eigenvalues, 0)

    def empty_costs(self) -> Array:
        """½ φ_0(λ_j²); λ_j as σ → 0."""
        return _phi(self.eigenvalues, self.blur**2) / 2

    # --- Closed forms -----------------------------------------------------------------------------------------------

    def local_rates(self, depth: int, kept: ArrayLike) -> tuple[Array, Array]:
        """4 (λ_a + λ_b)/(d_a + d_b) · (λ_a − λ_b)/(λ_a^{1/N} − λ_b^{1/N}) in the block, d_a = √(4 λ_a² + σ⁴), and off
        it 2 f_a λ_a^{−1/N} (λ_a − λ_b), f_a = 2 λ_a/(d_a + σ²).
        """
        lam, variance, J = equalized(self.eigenvalues), self.blur**2, np.asarray(kept, dtype=int)
        inside, outside = lam[J], np.delete(lam, J)
        d, root = np.hypot(2 * inside, variance), inside ** (1 / depth)
        a, b = np.triu_indices(len(inside))
        in_block = 4 * (inside[a] + inside[b]) / (d[a] + d[b]) * geometric_sum(root[a], root[b], depth)
        speed = 4 * inside ** (1 - 1 / depth) / (d + variance)
        return in_block, (speed[:, None] * (inside[:, None] - outside)).ravel()

    def filling_rates(self, depth: int, kept: ArrayLike) -> Array:
        """−2 λ_b/σ² at N = 1, 0 at N ≥ 2; b not in J."""
        outside = np.delete(equalized(self.eigenvalues), np.asarray(kept, dtype=int))
        return 0.0 - 2 * outside / self.blur**2 if depth == 1 else np.zeros_like(outside)

    def proved_rate(self, depth: int, least_singular_value: float) -> float:
        """4 N m^{1−1/N}/(2 + σ²/m + g), m = min(σ_n(W(0))², λ_n), g² m + σ² g = λ_1, for k = n.

        L(t) ≤ L(0) exp(−rate · t) along the balanced flow.
        """
        m, variance = closed_form_rates.retained(self.eigenvalues, least_singular_value), self.blur**2
        if m <= 0:
            return 0.0
        largest = float(self.eigenvalues[0])
        g = 2 * largest / (np.hypot(2 * np.sqrt(largest * m), variance) + variance)
        return float(4 * depth * m ** (1 - 1 / depth) / (2 + variance / m + g))

    def hessian_bounds(self) -> tuple[float, float]:
        """−2 λ_1/σ² and `HIGHEST_CURVATURE`: between them lie all eigenvalues of ∇²L_σ(W), at every W."""
        return float(-2 * self.eigenvalues[0] / self.blur**2), HIGHEST_CURVATURE

    def tail_constant(self, depth: int) -> float:
        """C of L − L* ~ C t^{−2N/(2N−1)} for λ_n = 0 < λ_{n−1}, k = n: ((8 N − 4)/σ²)^{−2N/(2N−1)}/(2 σ²)."""
        variance = self.blur**2
        return float(((8 * depth - 4) / variance) ** (-2 * depth / (2 * depth - 1)) / (2 * variance))

    def excess_by_direction(self, W: ArrayLike, rank: int) -> tuple[Array, Array]:
        """To second order, 2 (S − S*)_ab²/(d_a + d_b) in the block, half of that for a = b, and off it
        2 (λ_a − λ_b)/(d_a + σ²) · S_ab²/λ_a.
        """
        F, lam, variance = self.to_eigenbasis(W), self.eigenvalues, self.blur**2
        S, d = F[:rank] @ F.T, np.hypot(2 * self.eigenvalues[:rank], variance)
        inside, outside = lam[:rank], lam[rank:]
        a, b = np.triu_indices(rank)
        in_block = 2 * (S[:, :rank] - np.diag(inside))[a, b] ** 2 / (d[a] + d[b]) * np.where(a == b, 0.5, 1.0)
        weight = 2 * (inside[:, None] - outside) / (d + variance)[:, None] / inside[:, None]
        return in_block, (weight * S[:, rank:] ** 2).ravel()

    def batch_bias(self, fluctuation: Array) -> Array:
        """−Σ_j λ_j Var Σ̂_ij · 4/(d_i + d_j)², from G S G + σ² G = Σ̂ to second order: less than without blur."""
        lam, d = self.eigenvalues, np.hypot(2 * self.eigenvalues, self.blur**2)
        return np.asarray(-4 * np.sum(lam * fluctuation / (d[:, None] + d) ** 2, axis=-1))

    def level_of_empty_columns(self, W: ArrayLike) -> float:
        """2 λ_min(f(S) − G): an empty column changes S to second order only, so its Hessian is 2 (f(S) − G)."""
        F = self.to_eigenbasis(W)
        form = _Thin(self.minimum_over(self.dimension), F.shape[-1], self.dimension, self.blur**2)
        return float(np.linalg.eigvalsh(form.multiplied(form.decomposed(F), np.eye(self.dimension)))[0])

    def multiplier(self, spectrum: Array) -> Array:
        """2 (f(s) − λ φ'(λ s))."""
        lam, variance = self.eigenvalues, self.blur**2
        return 2 * (spectrum * _slope(spectrum, variance) - lam * _slope(np.sqrt(lam * spectrum), variance))

    def curvature(self, spectrum: Array, columns: NDArray[np.intp] | None = None) -> Array:
        """Q_ab = 2 (s_a + s_b) (f[s_a, s_b] − λ_a λ_b φ'[λ_a s_a, λ_b s_b]) + B_aa + B_bb, with divided differences."""
        variance = self.blur**2
        s_a, s_b = pairs(spectrum, columns)
        lam_a, lam_b = pairs(self.eigenvalues, columns)
        of_target = -_slope_difference(np.sqrt(lam_a * s_a), np.sqrt(lam_b * s_b), variance)
        B_a, B_b = pairs(self.multiplier(spectrum), columns)
        return 2 * (s_a + s_b) * (_f_difference(s_a, s_b, variance) + lam_a * lam_b * of_target) + B_a + B_b


class _Thin(Form):
    """From F = Y s Zᵀ and R F = U τ Vᵀ, thin: f(S) F = Y s³ φ'(s⁴) Zᵀ and G F = R U τ φ'(τ²) Vᵀ."""

    def __init__(self, minimum: Minimum, columns: int, rank: int, variance: float) -> None:
        super().__init__(minimum, columns, rank)
        self.variance = variance
        self.root: Array = np.sqrt(minimum.eigenvalues)[..., :, None]

    def decomposed(self, F: Array) -> _Parts:
        """Y, s², s Zᵀ and U, τ, τ Vᵀ; the squares s² are the eigenvalues of S, and τ² those of M = R S R."""
        Y, s, Zh = np.linalg.svd(F, full_matrices=False)
        U, tau, Vh = np.linalg.svd(self.root * F, full_matrices=False)
        return (Y, s**2, s[..., None] * Zh), (U, tau, tau[..., None] * Vh)

    def value(self, F: Array) -> Array:
        """L* + (L − L*), two sums of positive terms."""
        return self.minimum.value + self.excess(F)

    def excess(self, F: Array) -> Array:
        """D_p(M ‖ Σ0²) + D_h(S ‖ Σ0) within the ranges of W and R W, and the costs of their angles to Ω_1..k."""
        return self._excess(self.decomposed(of_rank(F, self.rank)))

    def gradient(self, F: Array) -> Array:
        """2 (f(S) − G) F."""
        return self._gradient(self.decomposed(F))

    def gradient_and_excess(self, F: Array) -> tuple[Array, Array]:
        """Both from one pair of decompositions where F has no more columns than its rank."""
        if self.rank < min(F.shape[-2:]):
            return self.gradient(F), self.excess(F)
        parts = self.decomposed(F)
        return self._gradient(parts), self._excess(parts)

    def value_and_gradient(self, F: Array) -> tuple[Array, Array]:
        """L and ∇L, from one pair of decompositions where F has no more columns than its rank."""
        gradient, excess = self.gradient_and_excess(F)
        return self.minimum.value + excess, gradient

    def _gradient(self, parts: _Parts) -> Array:
        (Y, s, Z), (U, tau, V) = parts
        own = (Y * (s * _slope(s, self.variance))[..., None, :]) @ Z
        return 2 * (own - self.root * ((U * _slope(tau, self.variance)[..., None, :]) @ V))

    def _excess(self, parts: _Parts) -> Array:
        (Y, s, _), (U, tau, _) = parts
        lam = self.minimum.eigenvalues
        total = self.minimum.lack(s.shape[-1])
        for frame, values, divergence in ((U, tau, _target_divergence), (Y, s, _own_divergence)):
            each = divergence(values[..., None, :], lam[..., :, None], self.variance)
            total = total + np.sum(frame**2 * each, axis=(-2, -1))
            total = total + _angles(frame, divergence(np.zeros_like(lam), lam, self.variance))
        return np.asarray(total)[()]

    def multiplied(self, parts: _Parts, V: Array) -> Array:
        """2 (f(S) − G) V."""
        (Y, s, _), (U, tau, _) = parts
        own = Y @ ((s * _slope(s, self.variance))[..., :, None] * (Y.mT @ V))
        return 2 * (own - self.root * self._of_slope(U, tau, self.root * V))

    def _of_slope(self, U: Array, tau: Array, X: Array) -> Array:
        """φ'(M) X, with φ'(0) = 1/σ² off the range of M."""
        inner = U.mT @ X
        return U @ (_slope(tau, self.variance)[..., :, None] * inner) + (X - U @ inner) / self.variance

    def hessian_operator(self, F: Array) -> Callable[[Array], Array]:
        """V ↦ 2 (f(S) − G) V + 2 (Df(S)[E] − R Dφ'(M)[R E R] R) F, E = V Fᵀ + F Vᵀ, by divided differences.

        E vanishes between directions off the range of F, so that Dg(S)[E] F needs no n × n arrays.
        """
        parts, variance = self.decomposed(F), self.variance
        (Y, s, Z), (U, tau, X) = parts
        zero = np.zeros_like(s)
        own = _Derivative(Y, Z, _loewner(_f_difference, s, variance), _f_difference(s, zero, variance))
        differences = _loewner(_slope_difference, tau, variance), _slope_difference(tau, zero, variance)
        of_target = _Derivative(U, X, *differences)

        def product(V: Array) -> Array:
            changed = own(F, V) - self.root * of_target(self.root * F, self.root * V)
            return self.multiplied(parts, V) + 2 * changed

        return product


class _Derivative:
    """V ↦ Dg(S)[V Fᵀ + F Vᵀ] F for F = Y C, from the divided differences of g at the eigenvalues of S and at 0."""

    def __init__(self, Y: Array, C: Array, within: Array, across: Array) -> None:
        self.Y, self.C, self.within, self.across = Y, C, within, across

    def __call__(self, F: Array, V: Array) -> Array:
        Y, C = self.Y, self.C
        E = V @ C.mT + F @ (V.mT @ Y)  # (V Fᵀ + F Vᵀ) Y
        inner = Y.mT @ E
        return Y @ ((self.within * inner) @ C) + (E - Y @ inner) @ (self.across[..., :, None] * C)


def _angles(frame: Array, cost: Array) -> Array:
    """Σ_{j≤k} c_j − Σ_j c_j P_jj for costs c_1 ≥ … ≥ c_n and the projector P on k directions, as a sum of squares.

    Σ_{j≤k} (c_j − c_k)(1 − P_jj) + Σ_{j>k} (c_k − c_j) P_jj. With the first k rows A cos θ Bᵀ of the frame and the
    others X, 1 − P_jj is the squared column j of X B Aᵀ.
    """
    k = frame.shape[-1]
    if k == frame.shape[-2]:
        return np.zeros(frame.shape[:-2], dtype=frame.dtype)
    inside, outside = frame[..., :k, :], frame[..., k:, :]
    A, _, Bh = np.linalg.svd(inside)
    missing = np.sum((outside @ (A @ Bh).mT) ** 2, axis=-2)
    edge = cost[..., k - 1 : k]
    kept = np.sum((cost[..., :k] - edge) * missing, axis=-1)
    return np.asarray(kept + np.sum((edge - cost[..., k:]) * np.sum(outside**2, axis=-1), axis=-1))


# --- Functions of one eigenvalue; `root` is √x ---------------------------------------------------------------------


def _phi(root: Array, variance: float) -> Array:
    """φ_0(x) = u − σ² log(1 + u/(2 σ²)), u = d − σ² = 4 x/(d + σ²)."""
    u = 2 * root**2 * _slope(root, variance)
    return u - variance * np.log1p(u / (2 * variance))


def _slope(root: Array, variance: float) -> Array:
    """φ'(x) = 2/(d + σ²), d = √(4 x + σ⁴)."""
    return 2 / (np.hypot(2 * root, variance) + variance)


def _loewner(difference: Callable[[Array, Array, float], Array], values: Array, variance: float) -> Array:
    return difference(values[..., :, None], values[..., None, :], variance)


def _slope_difference(a: Array, b: Array, variance: float) -> Array:
    """(φ'(a²) − φ'(b²))/(a² − b²) = −2 φ'(a²) φ'(b²)/(d_a + d_b)."""
    d_a, d_b = np.hypot(2 * a, variance), np.hypot(2 * b, variance)
    return -8 / ((d_a + variance) * (d_b + variance) * (d_a + d_b))


def _f_difference(a: Array, b: Array, variance: float) -> Array:
    """(f(a) − f(b))/(a − b) for f(s) = s φ'(s²), from s f² + σ² f = s: both terms are positive."""
    slope_a, slope_b = _slope(a, variance), _slope(b, variance)
    return variance * (slope_a + slope_b) / (2 * variance + (a + b) * (a * slope_a + b * slope_b))


def _relative(s: Array, lam: Array, variance: float) -> tuple[Array, Array, Array]:
    """a = d(s), b = d(λ) and r = (a − b)/(b + σ²)."""
    a, b = np.hypot(2 * s, variance), np.hypot(2 * lam, variance)
    return a, b, 4 * (s - lam) * (s + lam) / ((a + b) * (b + variance))


def _target_divergence(tau: Array, lam: Array, variance: float) -> Array:
    """φ(λ²) + φ'(λ²)(τ² − λ²) − φ(τ²) = ½ (b + σ²) r² − σ² (r − log(1 + r)) ≥ 0, without cancellation."""
    _, b, r = _relative(tau, lam, variance)
    return (b + variance) * r**2 / 2 - variance * _log_remainder(r)


def _own_divergence(s: Array, lam: Array, variance: float) -> Array:
    """½ φ(s²) − ½ φ(λ²) − f(λ)(s − λ) = 2 σ⁴ (s − λ)² (s + λ)/((b + σ²)(a + b)(s b + λ a)) + ½ σ² (r − log(1 + r))."""
    a, b, r = _relative(s, lam, variance)
    total = s + lam
    mean = np.divide(total, s * b + lam * a, out=np.zeros_like(total), where=total > 0)
    return 2 * variance**2 * (s - lam) ** 2 * mean / ((b + variance) * (a + b)) + variance * _log_remainder(r) / 2


def _log_remainder(r: Array) -> Array:
    """r − log(1 + r) for r > −1; for small r from the series in z = r/(2 + r), log(1 + r) = 2 artanh z."""
    z = np.clip(r / (2 + r), -1 / 3, 1 / 3)
    series = 2 * z**2 * (1 / (1 - z) - z * np.polyval(_TERMS[::-1], z**2))
    return np.where(np.abs(r) < 0.5, series, r - np.log1p(r))
