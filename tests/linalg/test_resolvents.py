"""M^{-1/2} as a sum of resolvents: the error of the quadrature, the resolvents, their weighted sums."""

import itertools

import mpmath as mp
import numpy as np
import pytest

from deepbures.linalg import resolvents as inverse_root
from deepbures.linalg.resolvents import _by_resolvents, inverse_root_product, inverse_root_rule, resolvents

EPS = np.finfo(float).eps


def relative_error(rule, mu):
    """√μ Σ_j w_j/(μ + τ_j) − 1 in 40 digits."""
    with mp.workdps(40):
        pairs = [(mp.mpf(float(t)), mp.mpf(float(w))) for t, w in zip(*rule, strict=True)]
        return [float(mp.sqrt(mp.mpf(m)) * mp.fsum(w / (mp.mpf(m) + t) for t, w in pairs) - 1) for m in mu.tolist()]


def bound(points, condition):
    """4 q/(1 − q) with q = exp(−2π m K/K'), m points, K = K(a/b), K' = K(1 − a/b), b/a the condition, at least 2."""
    with mp.workdps(40):
        ratio = 1 / mp.mpf(max(condition, 2.0))
        q = mp.exp(-2 * mp.pi * points * mp.ellipk(ratio) / mp.ellipk(1 - ratio))
        return float(4 * q / (1 - q))


def product(parts, function):
    return sum(part.weight * function(part) for part in parts)


@pytest.mark.parametrize("condition", [1.0, 1 + 1e-9, 2.0, 1e2, 1e6, 1e10, 1e16, 1e24])
@pytest.mark.parametrize("accuracy", [1e-2, 1e-8, 1e-12])
def test_error_is_bounded_and_the_bound_is_attained(condition, accuracy):
    # The promised bound is the maximum of the error over the interval, to 10 %, and at most the accuracy asked for
    # (5e-15: rounding of points and weights).
    rule = inverse_root_rule(3.0, 3.0 * condition, accuracy)
    found = np.abs(relative_error(rule, np.geomspace(3.0, 3.0 * condition, 200))).max()
    promised = bound(len(rule[0]), condition)
    assert promised <= accuracy
    assert found <= promised * (1 + 1e-3) + 5e-15
    if condition > 10:
        assert found >= 0.9 * promised


def test_one_point_fewer_would_not_do():
    # The number of points is the least that the bound allows: without the last one it exceeds the accuracy.
    for condition in (1e3, 1e7, 1e12):
        for accuracy in (1e-4, 1e-10):
            shifts, _ = inverse_root_rule(1.0, condition, accuracy)
            assert bound(len(shifts) - 1, condition) > accuracy


def test_error_falls_geometrically_with_the_number_of_points():
    # Hale, Higham and Trefethen 2008: error ~ exp(−2π² m/(log κ + log 16)), for κ = 1e8 a factor e^{−0.931} a point.
    rules = [inverse_root_rule(1.0, 1e8, accuracy) for accuracy in np.geomspace(1e-2, 1e-12, 30)]
    points = [len(shifts) for shifts, _ in rules]
    errors = [np.abs(relative_error(rule, np.geomspace(1, 1e8, 100))).max() for rule in rules]
    slope = np.polyfit(points, np.log(errors), 1)[0]
    assert slope == pytest.approx(-2 * np.pi**2 / (np.log(1e8) + np.log(16)), rel=0.01)


def test_points_grow_with_the_logarithm_of_the_condition():
    points = [len(inverse_root_rule(1.0, 10.0**p, 1e-12)[0]) for p in (4, 8, 12, 16)]
    assert np.ptp(np.diff(points)) <= 1
    assert points[-1] <= 60


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
def test_rule_scales_with_the_unit(unit):
    # μ → c μ: τ → c τ, w → √c w.
    one, other = inverse_root_rule(2.0, 3e5, 1e-12), inverse_root_rule(2.0 * unit, 3e5 * unit, 1e-12)
    np.testing.assert_allclose(other[0], one[0] * unit, rtol=1e-13)
    np.testing.assert_allclose(other[1], one[1] * np.sqrt(unit), rtol=1e-13)


@pytest.mark.parametrize(
    ("least", "largest", "accuracy"), [(0.0, 1.0, 1e-9), (2.0, 1.0, 1e-9), (1.0, np.inf, 1e-9), (1.0, 2.0, 0.0)]
)
def test_intervals_that_have_no_rule_are_refused(least, largest, accuracy):
    with pytest.raises(ValueError, match=r"^an inverse root needs 0 < least ≤ largest < ∞ and accuracy > 0, not"):
        inverse_root_rule(least, largest, accuracy)


# Columns of one size, small to huge; and of many sizes, rotated, where G is all but singular and the SVD takes over.
SCALES = [1.0, 1e3, 1e6, 1e9, [1e3, 1.0, 1e-3], [1e9, 1.0, 1.0]]


@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_resolvents_are_inverses(rng, scale):
    # (M + τ)^{-1} = diag(e) − A Aᵀ and (M + τ)^{-1} Y = A Cᵀ against M + τ itself in 60 digits.
    D, rotation = np.geomspace(1.0, 1e-4, 12), np.linalg.qr(rng.standard_normal((3, 3)))[0]
    Y = rng.standard_normal((12, 3)) * scale @ rotation
    shifts, _ = inverse_root_rule(D.min(), D.max() + np.linalg.norm(Y, 2) ** 2, 1e-12)
    with mp.workdps(60):
        exact = mp.diag(D.tolist()) + mp.matrix(Y.tolist()) * mp.matrix(Y.tolist()).T
        parts = zip(resolvents(D, Y.T.copy(), 1e-12), shifts.tolist(), strict=True)
        for part, shift in itertools.islice(parts, None, None, 5):  # one after the other: they share their memory
            inverse = (exact + shift * mp.eye(12)) ** -1
            inverse_Y = inverse * mp.matrix(Y.tolist())
            E = part.diagonal
            expected = np.array(inverse.tolist(), dtype=float)
            # Entry (i, j) is of size √(e_i e_j); beside it stays eps κ(E^{1/2} Y), what rounding Y itself does.
            condition = np.linalg.norm(np.sqrt(E)[:, None] * Y, 2) if isinstance(scale, list) else 10
            weights = np.sqrt(np.outer(E, E))
            found = np.diag(E) - part.outer.T @ part.outer
            assert np.abs((found - expected) / weights).max() < 100 * EPS * condition
            applied = np.abs(part.outer.T @ part.inner.T - np.array(inverse_Y.tolist(), dtype=float))
            assert (applied / np.sqrt(E)[:, None]).max() < 100 * EPS * condition


def test_a_second_orthonormalisation_is_what_keeps_the_digits(rng, monkeypatch):
    # Columns of G of condition 1e8: one pass leaves an error of about eps · 1e8.
    D, Y = np.ones(40), rng.standard_normal((40, 3)) @ np.diag([1e4, 1.0, 1.0]) @ np.linalg.qr(rng.random((3, 3)))[0]
    U, s, Vt = np.linalg.svd(Y, full_matrices=False)
    expected = U * (s / np.sqrt(1 + s**2)) @ Vt  # M^{-1/2} Y, M = I + Y Yᵀ
    errors = []
    for once in (1e300, 100.0):
        monkeypatch.setattr(inverse_root, "_ONCE", once)
        found = product(resolvents(D, Y.T.copy(), 1e-15), lambda part: part.outer.T @ part.inner.T)
        errors.append(np.abs(found - expected).max())
    assert errors[1] < 100 * EPS * 1e4  # κ(G)^{1/2}: what rounding Y itself does
    assert errors[0] > 20 * errors[1]


def test_weighted_sum_is_the_inverse_root(rng):
    # Σ_j w_j (M + τ_j)^{-1} against eigh of M, to the rounding of M^{-1/2}: eps κ^{1/2} relative.
    D, Y = np.geomspace(2.0, 1e-2, 60), rng.standard_normal((60, 4))
    mu, Q = np.linalg.eigh(np.diag(D) + Y @ Y.T)
    found = product(resolvents(D, Y.T.copy(), 1e-15), lambda part: np.diag(part.diagonal) - part.outer.T @ part.outer)
    np.testing.assert_allclose(found, Q / np.sqrt(mu) @ Q.T, rtol=0, atol=1e-12)


@pytest.mark.parametrize("accuracy", [1e-2, 1e-5])
def test_accuracy_holds_in_the_order_of_matrices(rng, accuracy):
    # (1 − a) M^{-1/2} ⪯ Σ ⪯ (1 + a) M^{-1/2}: eigenvalues of M^{1/4} Σ M^{1/4} lie in 1 ± a, and not all in 1 ± a/30.
    D, Y = np.geomspace(2.0, 1e-2, 60), rng.standard_normal((60, 4))
    mu, Q = np.linalg.eigh(np.diag(D) + Y @ Y.T)
    found = product(
        resolvents(D, Y.T.copy(), accuracy), lambda part: np.diag(part.diagonal) - part.outer.T @ part.outer
    )
    fourth = Q * mu**0.25 @ Q.T
    deviation = np.abs(np.linalg.eigvalsh(fourth @ found @ fourth) - 1).max()
    assert accuracy / 30 < deviation <= accuracy


def test_float32_stays_float32(rng):
    D, Yt = np.geomspace(1, 0.1, 30).astype(np.float32), rng.standard_normal((2, 30)).astype(np.float32)
    found = product(resolvents(D, Yt, 1e-6), lambda part: part.outer.T @ part.inner.T)
    double = product(resolvents(D.astype(float), Yt.astype(float), 1e-14), lambda part: part.outer.T @ part.inner.T)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, double, atol=1e-5)


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize(("graded", "by_resolvents"), [(False, False), (True, False), (None, True)])
def test_product_with_all_points_at_once_is_the_sum_over_resolvents(rng, monkeypatch, unit, graded, by_resolvents):
    """(M^{-1/2} Y)ᵀ; columns of very different size are no reason for the resolvents, nearly parallel ones are."""
    n, k, fallen_back = 16, 4, []
    D = unit * np.geomspace(1, 1e-6, n)
    Y = rng.standard_normal((n, k)) * np.sqrt(D)[:, None] * 30
    if graded:
        Y *= np.geomspace(1, 1e-6, k)
    elif graded is None:
        Y[:, 1] = Y[:, 0] * (1 + 1e-4 * rng.standard_normal(n))
        Y *= 1e4
    with monkeypatch.context() as patch:
        patch.setattr(inverse_root, "_by_resolvents", lambda *given: fallen_back.append(given) or other(*given))
        other = _by_resolvents
        found = inverse_root_product(D, np.ascontiguousarray(Y.T), 4 * EPS)
    assert bool(fallen_back) == by_resolvents
    with mp.workdps(50):
        M = mp.diag([mp.mpf(float(d)) for d in D]) + mp.matrix(Y.tolist()) * mp.matrix(Y.tolist()).T
        mu, Q = mp.eigsy(M)
        root = Q * mp.diag([1 / mp.sqrt(m) for m in mu]) * Q.T
        exact = np.array((root * mp.matrix(Y.tolist())).tolist(), dtype=float).T
    error = np.linalg.norm(found - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert error.max() < 1e-10
    assert inverse_root_product(D.astype(np.float32), Y.T.astype(np.float32), 1e-6).dtype == np.float32
