"""The losses: values, derivatives, critical points, minimisers, accuracy near the minimum."""

from itertools import combinations

import exact
import mpmath as mp
import numpy as np
import ot
import pytest
from scipy.optimize import minimize

from deepbures import gradient_flow
from deepbures.linalg.root_path import RootPath
from deepbures.losses import polar
from deepbures.losses.polar import polar_factor
from deepbures.losses.registry import BuresWasserstein, Frobenius

SPECTRUM = np.array([4.0, 3.0, 1.5, 0.7, 0.3])
EPS = np.finfo(float).eps


def make_loss(kind, covariance):
    """`kind` is "frobenius", or ε of the Bures-Wasserstein loss."""
    return Frobenius(covariance) if isinstance(kind, str) else BuresWasserstein(covariance, kind)


def orthogonal(rng, n):
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


def loglog_slope(h, remainders):
    return np.polyfit(np.log(h), np.log(np.abs(remainders)), 1)[0]


# --- Values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [2, 5, 7])
@pytest.mark.parametrize("kind", [0, 1e-3, 0.5, "frobenius"])
def test_value_in_fifty_digits(make_target, rng, kind, columns):
    # Relative accuracy 1e-13 of L(W) against its definition in mpmath.
    covariance, W = make_target(SPECTRUM), rng.standard_normal((5, columns))
    expected = exact.frobenius(W, covariance) if kind == "frobenius" else exact.bures_wasserstein(W, covariance, kind)
    assert make_loss(kind, covariance).value(W) == pytest.approx(float(expected), rel=1e-13)


@pytest.mark.parametrize("epsilon", [0, 0.5])
def test_value_on_singular_matrices_in_fifty_digits(make_target, rng, epsilon):
    # Target of rank 3, W of rank 2 with four columns: 1e-13 still.
    covariance = make_target([4, 2, 1, 0, 0], diagonal=True)
    W = np.zeros((5, 4))
    W[:, :2] = rng.standard_normal((5, 2))
    expected = float(exact.bures_wasserstein(W, covariance, epsilon))
    assert BuresWasserstein(covariance, epsilon).value(W) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("columns", [2, 5, 7])
@pytest.mark.parametrize("spectrum", [SPECTRUM, [4, 2, 1, 0, 0]], ids=["regular", "singular"])
@pytest.mark.parametrize("kind", [0, 1e-3, 0.5, "frobenius"])
def test_value_and_gradient_at_once(make_target, rng, monkeypatch, kind, spectrum, columns):
    # Both to 1e-12, far from the minimum and for factors of lower rank; one decomposition where M is well conditioned.
    loss, W = make_loss(kind, make_target(spectrum)), rng.standard_normal((6, 5, columns))
    W[3:, :, 1:] = 0
    calls = []
    for name in ("eigh", "svd"):
        function = getattr(np.linalg, name)
        monkeypatch.setattr(np.linalg, name, lambda *a, f=function, **more: (calls.append(f), f(*a, **more))[1])
    value, gradient = loss.value_and_gradient(W[:3])
    assert len(calls) <= (1 if kind in (0.5, "frobenius") else 2)
    np.testing.assert_allclose(value, loss.value(W[:3]), rtol=1e-12)
    np.testing.assert_allclose(gradient, loss.gradient(W[:3]), atol=1e-12 * np.abs(gradient).max())
    value, gradient = loss.value_and_gradient(W[3:])
    np.testing.assert_allclose(value, loss.value(W[3:]), rtol=1e-12)
    np.testing.assert_allclose(gradient, loss.gradient(W[3:]), atol=1e-12 * np.abs(gradient).max())


@pytest.mark.parametrize("distance", [1e-2, 1e-5, 1e-8])
@pytest.mark.parametrize(("ratio", "columns"), [(0, 5), (1e-3, 5), (0.5, 7)])
def test_value_and_gradient_keep_the_digits_of_the_value(rng, ratio, columns, distance):
    # Near the minimum and at condition 1e4: relative error below 24 eps √(λ_1/L), as that of the excess, in 50 digits.
    eigenvalues = np.geomspace(1, 1e-4, 5)
    loss = BuresWasserstein.from_spectrum(eigenvalues, epsilon=ratio * 1e-4)
    root = np.sqrt(eigenvalues - loss.epsilon)[:, None]
    W = (np.eye(5) + distance * rng.standard_normal((5, 5))) * root @ orthogonal(rng, columns)[:5]
    expected = exact.bures_wasserstein(W, np.diag(eigenvalues), loss.epsilon)
    value, gradient = loss.value_and_gradient(W)
    assert abs(float(value / expected - 1)) < 24 * EPS / np.sqrt(float(expected))
    np.testing.assert_allclose(gradient, loss.gradient(W), atol=1e-15)


def test_value_and_gradient_keep_the_digits_at_a_singular_matrix(rng):
    # ε = 0, W the optimum without its last direction: L = λ_5 = 1e-12 to 24 eps √(λ_1/L) again, in 50 digits.
    eigenvalues = np.geomspace(1, 1e-12, 5)
    loss = BuresWasserstein.from_spectrum(eigenvalues)
    W = (np.eye(5)[:, :4] + 1e-8 * rng.standard_normal((5, 4))) * np.sqrt(eigenvalues[:4]) @ orthogonal(rng, 5)[:4]
    expected = exact.bures_wasserstein(W, np.diag(eigenvalues), 0)
    for value in (loss.value(W), loss.value_and_gradient(W)[0]):
        assert abs(float(value / expected - 1)) < 24 * EPS / np.sqrt(float(expected))


@pytest.mark.parametrize("epsilon", [0, 0.1, 2])
def test_value_is_the_squared_distance_of_pot(make_target, rng, epsilon):
    # L_ε(W) = BW²(N(0, S + εI), N(0, Σ0)).
    covariance, W = make_target(SPECTRUM), rng.standard_normal((5, 5))
    mean = np.zeros(5)
    distance = ot.gaussian.bures_wasserstein_distance(mean, mean, W @ W.T + epsilon * np.eye(5), covariance)
    assert BuresWasserstein(covariance, epsilon).value(W) == pytest.approx(distance**2, rel=1e-10)


@pytest.mark.parametrize("epsilon", [0, 0.1, 2])
def test_value_of_commuting_covariances(make_target, rng, epsilon):
    # S = Ω diag(s) Ωᵀ: L_ε = Σ_j (√λ_j − √(s_j + ε))².
    loss = BuresWasserstein(make_target(SPECTRUM), epsilon)
    s = np.array([1.0, 5.0, 0.0, 0.7, 2.0])
    W = loss.eigenvectors * np.sqrt(s) @ orthogonal(rng, 5)
    expected = np.sum((np.sqrt(SPECTRUM) - np.sqrt(s + epsilon)) ** 2)
    assert loss.value(W) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", [0, 0.2, "frobenius"])
def test_stacks_equal_loops(make_target, rng, kind):
    loss = make_loss(kind, make_target(SPECTRUM))
    W, V = rng.standard_normal((2, 3, 2, 5, 3))
    for stacked, one in (
        (loss.value(W), loss.value),
        (loss.excess(W, 3), lambda w: loss.excess(w, 3)),
        (loss.gradient(W), loss.gradient),
    ):
        looped = np.array([[one(w) for w in row] for row in W])
        np.testing.assert_allclose(stacked, looped, rtol=1e-11, atol=1e-13)
    looped = np.array(
        [[loss.hessian_product(w, v) for w, v in zip(*rows, strict=True)] for rows in zip(W, V, strict=True)]
    )
    np.testing.assert_allclose(loss.hessian_product(W, V), looped, rtol=1e-10, atol=1e-12)


def test_stack_may_mix_ranks(make_target, rng):
    # The pseudo-inverse is taken matrix by matrix.
    loss = BuresWasserstein(make_target(SPECTRUM))
    W = rng.standard_normal((3, 5, 5))
    W[1] = np.outer(W[1, 0], W[1, 1])
    W[2] *= 1e-12
    np.testing.assert_allclose(loss.gradient(W), [loss.gradient(w) for w in W], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kind", [0, 0.2, "frobenius"])
def test_invariance_under_rotations(make_target, rng, kind):
    # L(W Q) = L(W) and ∇L(W Q) = ∇L(W) Q;  L(U W; U Σ Uᵀ) = L(W; Σ) and its gradient turns with U.
    covariance, W = make_target(SPECTRUM), rng.standard_normal((5, 4))
    Q, U = orthogonal(rng, 4), orthogonal(rng, 5)
    loss, turned = make_loss(kind, covariance), make_loss(kind, U @ covariance @ U.T)
    assert loss.value(W @ Q) == pytest.approx(loss.value(W), rel=1e-13)
    assert turned.value(U @ W) == pytest.approx(loss.value(W), rel=1e-13)
    np.testing.assert_allclose(loss.gradient(W @ Q), loss.gradient(W) @ Q, atol=1e-12)
    np.testing.assert_allclose(turned.gradient(U @ W), U @ loss.gradient(W), atol=1e-12)
    assert turned.excess(U @ W, 4) == pytest.approx(loss.excess(W, 4), rel=1e-12)


# --- Derivatives ------------------------------------------------------------------------------------------------

FULL, SINGULAR = [4, 2, 1, 0.4], [4, 2, 1, 0]
DERIVATIVE_CASES = [
    (0, FULL, 4),
    (0, FULL, 6),
    (0, FULL, 2),
    (0, SINGULAR, 3),
    (0, SINGULAR, 2),
    (0, SINGULAR, 4),
    (0, SINGULAR, 6),
    (0.3, FULL, 4),
    (0.3, FULL, 6),
    (0.3, FULL, 2),
    (0.3, SINGULAR, 4),
    (0.3, SINGULAR, 2),
    (1e-3, FULL, 4),
    ("frobenius", FULL, 4),
    ("frobenius", FULL, 6),
    ("frobenius", FULL, 2),
    ("frobenius", SINGULAR, 4),
]


@pytest.mark.parametrize(("kind", "eigenvalues", "columns"), DERIVATIVE_CASES)
def test_gradient_by_taylor_remainder(make_target, kind, eigenvalues, columns):
    # L(W + hV) − L(W) − h⟨∇L, V⟩ = O(h²).
    rng = np.random.default_rng(7)
    loss = make_loss(kind, make_target(eigenvalues))
    W, V = rng.standard_normal((2, 4, columns))
    h = np.logspace(-5, -3, 9)
    remainder = loss.value(W + h[:, None, None] * V) - loss.value(W) - h * np.vdot(loss.gradient(W), V)
    assert loglog_slope(h, remainder) == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize(("kind", "eigenvalues", "columns"), DERIVATIVE_CASES)
def test_hessian_product_by_taylor_remainder(make_target, kind, eigenvalues, columns):
    # L(W + hV) − L(W) − h⟨∇L, V⟩ − h²/2 ⟨∇²L[V], V⟩ = O(h³), and ∇L(W + hV) − ∇L(W) − h ∇²L[V] = O(h²).
    rng = np.random.default_rng(7)
    loss = make_loss(kind, make_target(eigenvalues))
    W, V = rng.standard_normal((2, 4, columns))
    product = loss.hessian_product(W, V)
    h = np.logspace(-3.5, -2, 9)
    moved = W + h[:, None, None] * V
    change = loss.value(moved) - loss.value(W) - h * np.vdot(loss.gradient(W), V)
    assert loglog_slope(h, change - h**2 / 2 * np.vdot(product, V)) == pytest.approx(3, abs=0.1)
    remainder = loss.gradient(moved) - loss.gradient(W) - h[:, None, None] * product
    assert loglog_slope(h, np.linalg.norm(remainder, axis=(1, 2))) == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("columns", [2, 4, 6])
@pytest.mark.parametrize("kind", [0, 0.3, "frobenius"])
def test_hessian_is_symmetric(make_target, rng, kind, columns):
    # ⟨∇²L[V], X⟩ = ⟨V, ∇²L[X]⟩.
    loss = make_loss(kind, make_target(FULL))
    W, V, X = rng.standard_normal((3, 4, columns))
    left, right = np.vdot(loss.hessian_product(W, V), X), np.vdot(V, loss.hessian_product(W, X))
    assert left == pytest.approx(right, rel=1e-11)


@pytest.mark.parametrize(
    ("columns", "vanishing", "slope"),
    [(4, 1, -1), (2, 1, -1), (3, 2, -1), (3, 1, 0)],
    ids=["wide", "tall", "square-two", "square-one"],
)
def test_unsmoothed_hessian_near_a_singular_matrix(columns, vanishing, slope):
    # ε = 0 (paper.md section 2): the most negative eigenvalue diverges like −1/σ_min(W), the largest stays at 2. In
    # a square W it takes two singular values that vanish: the curvatures are −1/(σ_i + σ_j), i ≠ j.
    loss = BuresWasserstein(np.diag([3.0, 2.0, 1.0]))
    basis = np.eye(3 * columns).reshape(-1, 3, columns)
    rng = np.random.default_rng(3)
    U, V = orthogonal(rng, 3), orthogonal(rng, columns)
    sigma = np.logspace(-6, -4, 5)
    ends = []
    for least in sigma:
        diagonal = np.zeros((3, columns))
        np.fill_diagonal(diagonal, [2.0, 1.0, 0.5])
        last = min(3, columns) - 1
        diagonal[range(last, last - vanishing, -1), range(last, last - vanishing, -1)] = least
        W = U @ diagonal @ V
        hessian = loss.hessian_product(np.broadcast_to(W, basis.shape), basis).reshape(3 * columns, -1)
        ends.append(np.linalg.eigvalsh(hessian)[[0, -1]])
    lowest, highest = np.transpose(ends)
    assert loglog_slope(sigma, lowest) == pytest.approx(slope, abs=0.01)
    np.testing.assert_allclose(highest, 2, atol=1e-6)


@pytest.mark.parametrize("epsilon", [1e-14, 1e-10, 1e-3])
def test_gradient_keeps_its_digits_where_little_smoothing_meets_a_singular_matrix(make_target, rng, epsilon):
    # W = Ω diag(σ) Q: ∇L_ε = 2 Ω diag((1 − √(λ/(σ² + ε))) σ) Q. The condition of M reaches 1e14, that of its root 1e7.
    loss = BuresWasserstein(make_target([4.0, 2.0, 1.0]), epsilon)
    sigma, Q = np.array([3.0, 1.0, 1e-6]), orthogonal(rng, 3)
    expected = 2 * loss.eigenvectors * ((1 - np.sqrt(loss.eigenvalues / (sigma**2 + epsilon))) * sigma) @ Q
    found = loss.gradient(loss.eigenvectors * sigma @ Q)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("rank", [2, 4])
def test_hessian_refuses_where_the_loss_is_not_twice_differentiable(rng, rank):
    W = rng.standard_normal((5, 5))
    W[:, rank:] = 0
    with pytest.raises(ValueError, match=r"rank 5 on the range.*not twice differentiable"):
        BuresWasserstein(np.diag(SPECTRUM)).hessian_product(W, W)


@pytest.mark.parametrize("columns", [5, 8])
def test_gradient_norm_gives_the_loss(make_target, rng, columns):
    # ‖∇L_0(W)‖² = 4 L_0(W) at full rank n ≤ d: Polyak-Łojasiewicz with equality (paper.md section 2).
    loss = BuresWasserstein(make_target(SPECTRUM))
    W = rng.standard_normal((20, 5, columns))
    np.testing.assert_allclose(np.sum(loss.gradient(W) ** 2, axis=(1, 2)), 4 * loss.value(W), rtol=1e-12)


def test_loss_is_the_distance_to_the_best_rotated_root(make_target, rng):
    # L_0(W) = min_Q ‖W − R Q‖²_F, attained at the polar factor of R W.
    loss = BuresWasserstein(make_target(SPECTRUM))
    W = rng.standard_normal((5, 5))
    R = loss.eigenvectors * np.sqrt(loss.eigenvalues) @ loss.eigenvectors.T
    U, _, Vh = np.linalg.svd(R @ W)
    assert loss.value(W) == pytest.approx(np.sum((W - R @ U @ Vh) ** 2), rel=1e-13)
    assert all(np.sum((W - R @ orthogonal(rng, 5)) ** 2) > loss.value(W) for _ in range(50))


def test_float32_stays_float32(make_target, rng):
    covariance, W = make_target(SPECTRUM), rng.standard_normal((5, 5))
    for kind in (0, 0.3, "frobenius"):
        single = make_loss(kind, covariance.astype(np.float32)).gradient(W.astype(np.float32))
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, make_loss(kind, covariance).gradient(W), rtol=1e-3, atol=1e-4)


# --- Critical points and minimisers -----------------------------------------------------------------------------

INDEX_SETS = [J for k in range(1, 6) for J in combinations(range(5), k)]


@pytest.mark.parametrize("columns", [5, 7])
@pytest.mark.parametrize("kind", [0, 0.1, "frobenius"])
def test_gradient_vanishes_at_every_critical_point(make_target, rng, kind, columns):
    # W_J = Ω_J (Λ_J − εI)^{1/2} Vᵀ (paper.md section 3), for every index set J.
    loss = make_loss(kind, make_target(SPECTRUM))
    shift = 0 if kind == "frobenius" else kind
    for J in INDEX_SETS:
        V = orthogonal(rng, columns)[:, : len(J)]
        W = loss.eigenvectors[:, J] * np.sqrt(SPECTRUM[list(J)] - shift) @ V.T
        np.testing.assert_allclose(loss.gradient(W), 0, atol=1e-12)


@pytest.mark.parametrize("kind", [0, 0.1, "frobenius"])
def test_critical_values(make_target, rng, kind):
    # BW: Σ_{j∉J} (λ_j + ε − 2 √(ε λ_j)); Frobenius: Σ_{j∉J} λ_j².
    loss = make_loss(kind, make_target(SPECTRUM))
    shift = 0 if kind == "frobenius" else kind
    for J in INDEX_SETS:
        kept = list(J)
        missing = np.delete(SPECTRUM, kept)
        expected = missing**2 if kind == "frobenius" else missing + shift - 2 * np.sqrt(shift * missing)
        V = orthogonal(rng, 5)[:, : len(J)]
        W = loss.eigenvectors[:, kept] * np.sqrt(SPECTRUM[kept] - shift) @ V.T
        assert loss.value(W) == pytest.approx(expected.sum(), rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("kind", [0, 0.1, "frobenius"])
def test_saddle_values_are_the_losses_of_the_leading_critical_points(make_target, kind):
    loss = make_loss(kind, make_target(SPECTRUM))
    shift = 0 if kind == "frobenius" else kind
    kept = np.tri(6, 5, -1)  # row i keeps the i largest
    W = loss.eigenvectors * np.sqrt(kept * (SPECTRUM - shift))[:, None, :]
    np.testing.assert_allclose(loss.saddle_values(5), loss.value(W), rtol=1e-12, atol=1e-14)
    for rank in range(1, 6):
        np.testing.assert_allclose(loss.saddle_values(rank)[-1], loss.minimum_value(rank), atol=1e-14)


def test_saddle_values_end_at_the_minimum_when_epsilon_cuts_directions_off(make_target):
    # ε above some λ_j: those directions stay empty, and the last energy level is L* all the same.
    loss = BuresWasserstein(make_target(SPECTRUM), 1.0)
    for rank in range(1, 6):
        assert loss.saddle_values(rank)[-1] == pytest.approx(loss.minimum_value(rank), rel=1e-12)


EPSILONS_AND_SPECTRUM_CUTS = [0, 0.1, 0.3, 1.0, 3.5, 10.0, "frobenius"]


@pytest.mark.parametrize("rank", [1, 3, 5])
@pytest.mark.parametrize("kind", EPSILONS_AND_SPECTRUM_CUTS)
def test_minimum_value_in_closed_form(make_target, kind, rank):
    # L* = Σ_{j>k} (√λ_j − √ε)², and (√λ_j − √ε)² for each j ≤ k with λ_j < ε; eigenvalues (λ_j − ε)_+.
    loss = make_loss(kind, make_target(SPECTRUM))
    covariance, value = loss.minimum(rank)
    if kind == "frobenius":
        expected = exact.frobenius_minimum(loss.covariance, rank)
        spectrum = SPECTRUM * (np.arange(5) < rank)
    else:
        expected = exact.bures_wasserstein_minimum(loss.covariance, kind, rank)
        spectrum = np.maximum(SPECTRUM - kind, 0) * (np.arange(5) < rank)
    assert value == pytest.approx(float(expected), rel=1e-12, abs=1e-14)
    np.testing.assert_allclose(np.linalg.eigvalsh(covariance)[::-1], spectrum, atol=1e-13)
    # The minimiser has that loss.
    W = loss.eigenvectors * np.sqrt(spectrum)
    np.testing.assert_allclose(W @ W.T, covariance, atol=1e-13)
    assert loss.value(W) == pytest.approx(value, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("rank", [1, 3, 5])
@pytest.mark.parametrize("kind", EPSILONS_AND_SPECTRUM_CUTS)
def test_no_matrix_of_that_rank_has_a_lower_loss(make_target, rng, kind, rank):
    loss = make_loss(kind, make_target(SPECTRUM))
    W = rng.standard_normal((2000, 5, rank)) * rng.uniform(0, 2, (2000, 1, 1))
    assert loss.value(W).min() > loss.minimum_value(rank) - 1e-13
    assert loss.excess(W, rank).min() > 0
    best = (loss.eigenvectors * np.sqrt(loss.minimum_spectrum(rank)))[:, :rank]
    near = best + np.logspace(-6, 0, 2000)[:, None, None] * rng.standard_normal(W.shape)
    assert loss.excess(near, rank).min() > 0
    assert (loss.value(near) - loss.minimum_value(rank)).min() > -1e-13


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("kind", [0, 0.1, 1.0, "frobenius"])
def test_descent_from_random_starts_ends_at_the_minimum(make_target, rng, kind, rank):
    # The global minimum is attained: no other local one (L-BFGS from five starts, 1e-6).
    loss = make_loss(kind, make_target(SPECTRUM))
    for start in rng.standard_normal((5, 5 * rank)):
        found = minimize(
            lambda w: float(loss.value(w.reshape(5, rank))),
            start,
            jac=lambda w: loss.gradient(w.reshape(5, rank)).ravel(),
            options={"maxiter": 2000, "gtol": 1e-7},
        )
        assert found.fun == pytest.approx(loss.minimum_value(rank), rel=1e-6)


# --- Excess loss ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize(
    ("kind", "rank", "columns"),
    [
        (0, 5, 5),
        (0, 5, 7),
        (0, 2, 2),
        (0, 3, 3),
        (0.1, 5, 5),
        (0.1, 2, 2),
        (0.1, 5, 7),
        (0.5, 5, 5),
        (0.5, 3, 3),
        (1.0, 4, 4),
        ("frobenius", 5, 5),
        ("frobenius", 2, 2),
    ],
)
def test_excess_keeps_relative_accuracy(make_target, kind, rank, columns, diagonal):
    # L − L* against mpmath's L minus mpmath's L*, from 1e-1 to 1e-24 and below. What holds: a relative error of at
    # most 100 eps √(λ_1 / (L − L*)), the effect of perturbing W by a few eps. So 1e-6 down to 1e-16 and 1e-2 at
    # 1e-24, where a difference of losses has ended in noise at 1e-14.
    rng = np.random.default_rng(1)
    loss = make_loss(kind, make_target(SPECTRUM, diagonal=diagonal))
    best = (loss.eigenvectors * np.sqrt(loss.minimum_spectrum(rank)))[:, :rank]
    for distance in (1e-1, 1e-3, 1e-6, 1e-8, 1e-10, 1e-12, 1e-13):
        W = (best + distance * rng.standard_normal(best.shape)) @ orthogonal(rng, columns)[:rank]
        if kind == "frobenius":
            expected = exact.frobenius(W, loss.covariance) - exact.frobenius_minimum(loss.covariance, rank)
            scale = SPECTRUM[0]
        else:
            minimum = exact.bures_wasserstein_minimum(loss.covariance, kind, rank)
            expected = exact.bures_wasserstein(W, loss.covariance, kind) - minimum
            scale = np.sqrt(SPECTRUM[0])
        assert expected > 0
        error = float(abs(mp.mpf(float(loss.excess(W, rank))) - expected) / expected)
        assert error <= 100 * EPS * scale / float(mp.sqrt(expected)) + 100 * EPS
    assert expected < 1e-23


@pytest.mark.parametrize("distance", [1e-1, 1e-6])
@pytest.mark.parametrize("condition", [3.0, 300.0, 3e4])
@pytest.mark.parametrize("kind", [0, 0.5])
@pytest.mark.parametrize("way", ["along", "near_diagonal"])
def test_gradient_and_excess_at_once_keep_their_digits(make_target, rng, way, kind, condition, distance):
    # One eigh up to κ(M) = 1e3, which κ(Σ0) = 20 still has; beyond it each by itself, and never worse than the bound.
    loss = BuresWasserstein(make_target(np.geomspace(condition, 1.0, 12)), kind)
    root = np.diag(np.sqrt(loss.minimum_spectrum(12)))
    F = np.array([root + distance * rng.standard_normal((12, 12)) for _ in range(2)])
    form = loss.form(12)
    if way == "along":  # the third root of a path is not decomposed
        along = form.along(RootPath())
        for factor in (0.999999, 0.9999995):
            along.gradient(factor * F)
        gradient, excess = along.gradient_and_excess(F)
    else:
        gradient, excess = form.near_diagonal().gradient_and_excess(F)
    for i in range(2):
        W = loss.from_eigenbasis(F[i])
        minimum = exact.bures_wasserstein_minimum(loss.covariance, kind, 12)
        expected = exact.bures_wasserstein(W, loss.covariance, kind) - minimum
        bound = 100 * EPS * np.sqrt(condition / float(expected)) + 100 * EPS
        assert float(abs(mp.mpf(float(excess[i])) - expected) / expected) <= bound
    np.testing.assert_allclose(gradient, form.gradient(F), atol=1e-11 * np.sqrt(condition))
    if way == "along":  # recording the excess of a descent does not change its steps
        along = form.along(RootPath())
        for factor in (0.999999, 0.9999995):
            along.gradient(factor * F)
        np.testing.assert_array_equal(gradient, along.gradient(F))


@pytest.mark.parametrize("kind", [0, 0.1, 1.0, "frobenius"])
@pytest.mark.parametrize("rank", [1, 3, 5])
def test_excess_is_the_difference_far_from_the_minimum(make_target, rng, kind, rank):
    loss = make_loss(kind, make_target(SPECTRUM))
    W = rng.standard_normal((20, 5, rank)) @ orthogonal(rng, 7)[:rank]
    np.testing.assert_allclose(loss.excess(W, rank), loss.value(W) - loss.minimum_value(rank), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", [0, 0.1, "frobenius"])
def test_excess_of_a_lower_rank(make_target, rng, kind):
    # L* refers to `rank`, and W may have fewer columns.
    loss = make_loss(kind, make_target(SPECTRUM))
    W = rng.standard_normal((5, 1))
    assert loss.excess(W, 3) == pytest.approx(loss.value(W) - loss.minimum_value(3), rel=1e-13)


def test_excess_refuses_a_higher_rank(make_target, rng):
    loss = BuresWasserstein(make_target(SPECTRUM))
    with pytest.raises(ValueError, match=r"W must have rank ≤ 2"):
        loss.excess(rng.standard_normal((5, 5)), 2)


@pytest.mark.parametrize("epsilon", [0, 0.3])
def test_excess_on_a_singular_target(make_target, rng, epsilon):
    loss = BuresWasserstein(make_target([4, 2, 1, 0, 0]), epsilon)
    for rank in (2, 3, 5):
        W = rng.standard_normal((5, rank))
        assert loss.excess(W, rank) == pytest.approx(loss.value(W) - loss.minimum_value(rank), rel=1e-12)


# --- Polar factor -----------------------------------------------------------------------------------------------

SHAPES = [(5, 3), (3, 5), (4, 4), (6, 1), (1, 6), (30, 30)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_polar_factor_over_all_conditions(rng, shape):
    # X = U σ Vᵀ of condition κ: U Vᵀ to 20 eps κ² up to κ² = 1e5, from the Gram matrix; beyond it to 20 eps κ, from the
    # Gram matrix with a correction, and from the SVD.
    columns = min(shape)
    for condition in np.logspace(0, 12, 49):
        U, V = orthogonal(rng, shape[0])[:, :columns], orthogonal(rng, shape[1])[:, :columns]
        found = polar_factor(U * np.geomspace(1, 1 / condition, columns) @ V.T)
        error = np.abs(found - U @ V.T).max()
        assert error < 20 * EPS * (condition**2 if condition**2 < 1.01e5 else condition)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_polar_factor_is_the_same_from_gram_matrix_and_svd(monkeypatch, rng, shape):
    X = rng.standard_normal((20, *shape))
    found = []
    for threshold in (-1.0, 2.0):  # never and always corrected, or from the SVD
        monkeypatch.setattr(polar, "GRAM_CONDITION", threshold)
        found.append(polar_factor(X))
    # Both lose at most κ² eps.
    gap, condition = np.abs(found[0] - found[1]).max(axis=(1, 2)), np.linalg.cond(X)
    assert (gap < 20 * EPS * condition**2).all()
    assert shape in ((6, 1), (1, 6)) or gap.max() > 0  # they are two computations


@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
def test_polar_factor_of_singular_matrices(rng, shape):
    # Rank r: Q Qᵀ Q = Q is a partial isometry of rank r, Qᵀ X is symmetric positive semidefinite, and Q = 0 for X = 0.
    for rank in range(3):
        X = rng.standard_normal((shape[0], rank)) @ rng.standard_normal((rank, shape[1]))
        Q = polar_factor(X)
        np.testing.assert_allclose(np.linalg.svd(Q, compute_uv=False), np.arange(min(shape)) < rank, atol=1e-13)
        np.testing.assert_allclose(Q @ Q.T @ Q, Q, atol=1e-13)
        np.testing.assert_allclose(Q.T @ X, X.T @ Q, atol=1e-13)
        assert np.linalg.eigvalsh(Q.T @ X).min() > -1e-13


@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
def test_polar_factors_of_a_mixed_stack_are_those_of_its_members(rng, shape):
    # Well conditioned, of condition 1e6, of rank 1 and zero, in one stack (2, 4).
    X = rng.standard_normal((2, 4, *shape))
    U, s, Vh = np.linalg.svd(X[:, 1:3], full_matrices=False)
    s[:, 0, -1], s[:, 1, 1:] = 1e-6, 0
    X[:, 1:3] = U * s[..., None, :] @ Vh
    X[:, 3] = 0
    found = polar_factor(X)
    for i in np.ndindex(2, 4):
        np.testing.assert_array_equal(found[i], polar_factor(X[i]))
    assert np.abs(found[:, :3]).max(axis=(2, 3)).min() > 0


# --- Bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [-1e-3, np.nan, np.inf])
def test_epsilon_must_be_finite_and_not_negative(epsilon):
    with pytest.raises(ValueError, match=rf"epsilon must be a finite number ≥ 0, not {epsilon}"):
        BuresWasserstein(np.eye(2), epsilon)


@pytest.mark.parametrize("covariance", [np.ones((2, 3)), np.diag([1, -1]), [[1, 2], [0, 1]], [[np.nan]]])
@pytest.mark.parametrize("loss", [BuresWasserstein, Frobenius])
def test_covariance_must_be_positive_semidefinite(loss, covariance):
    with pytest.raises(ValueError, match=r"^covariance must be"):
        loss(covariance)


@pytest.mark.parametrize("method", ["value", "gradient", "excess"])
@pytest.mark.parametrize(
    ("W", "message"),
    [
        (np.ones((2, 3)), r"W must have 3 rows.*\(2, 3\)"),
        (np.ones(3), r"W must be .* at least 2 axes.*\(3,\)"),
        (np.full((3, 3), np.nan), r"W must be finite.*9 NaN"),
        (np.ones((3, 3)) * 1j, r"W must hold real numbers, not complex128"),
    ],
)
def test_matrix_must_fit(method, W, message):
    with pytest.raises(ValueError, match=message):
        getattr(BuresWasserstein(np.eye(3)), method)(W)


def test_direction_must_have_the_shape_of_the_matrix():
    with pytest.raises(ValueError, match=r"V must have the shape of W, \(3, 3\), not \(3, 2\)"):
        BuresWasserstein(np.eye(3)).hessian_product(np.eye(3), np.ones((3, 2)))


@pytest.mark.parametrize("rank", [0, -1, 4])
def test_rank_must_lie_in_range(rank):
    loss = BuresWasserstein(np.eye(3))
    for call in (lambda: loss.minimum(rank), lambda: loss.excess(np.eye(3), rank)):
        with pytest.raises(ValueError, match=rf"rank must lie between 1 and the dimension 3, not {rank}"):
            call()


@pytest.mark.parametrize(
    ("eigenvalues", "epsilon", "message"),
    [
        ([[2, 1]] * 2, [0, 0.1], r"^epsilon must be 0 for all targets of a stack or positive for all, not \[0, 0.1\]$"),
        ([[2, 1]] * 2, [0.1] * 3, r"^epsilon must be one number or have the shape of the stack, \(2,\), not \(3,\)$"),
        ([[2, 1]] * 2, [[0.1], [0.1]], r"^epsilon must be one number or .* \(2,\), not \(2, 1\)$"),
        ([2, 1], [0.1], r"^epsilon must be one number or .* \(\), not \(1,\)$"),
        ([[2, 1]] * 2, [0.1, -0.1], r"^epsilon must be a finite number ≥ 0, not \[0.1, -0.1\]$"),
        ([[2, 1]] * 2, [0.1, np.nan], r"^epsilon must be a finite number ≥ 0, not \[0.1, nan\]$"),
        ([[2, 1], [2, 0]], 0, r"^the covariances of a stack must have one rank, not 1 to 2$"),
        ([[2, 1], [2, 0]], 0.1, r"^the covariances of a stack must have one rank, not 1 to 2$"),
        ([[2, 1], [2, -1]], 0, r"^covariance must be positive semidefinite, but its smallest eigenvalue is -1$"),
        ([[2, 1], [2, np.nan]], 0, r"^covariance must be finite, but it holds 2 NaN or infinite entries$"),
    ],
)
def test_bad_stacks_are_refused_in_one_line(eigenvalues, epsilon, message):
    with pytest.raises(ValueError, match=message):
        BuresWasserstein(np.array(eigenvalues)[..., None] * np.eye(2), epsilon)


# A zero target: L = ‖W‖² + nε, whose gradient is 2W.


@pytest.mark.parametrize("epsilon", [0, 0.1, [0.1, 0.3]])
def test_a_zero_target_has_the_gradient_two_w(rng, epsilon):
    stack = np.shape(epsilon)
    loss = BuresWasserstein(np.zeros((*stack, 3, 3)), epsilon)
    W, V = rng.standard_normal((2, *stack, 3, 2))
    np.testing.assert_allclose(loss.value(W), np.sum(W**2, axis=(-2, -1)) + 3 * np.asarray(epsilon), rtol=1e-14)
    np.testing.assert_allclose(loss.excess(W), np.sum(W**2, axis=(-2, -1)), rtol=1e-14)
    np.testing.assert_array_equal(loss.gradient(W), 2 * loss.eigenvectors @ (loss.eigenvectors.mT @ W))
    np.testing.assert_allclose(loss.hessian_product(W, V), 2 * V, rtol=1e-14)
    np.testing.assert_array_equal(loss.transport_map(W), np.zeros((*stack, 3, 3)))


def test_a_flow_to_a_zero_target_decays_exponentially(rng):
    # One layer: dW/dt = −2W, L − L* = ‖W(0)‖² exp(−4t).
    flow = gradient_flow(BuresWasserstein(np.zeros((3, 3)), 0.1), np.eye(3), 1, times=[0.0, 0.5, 1.0], rtol=1e-9)
    np.testing.assert_allclose(flow.excess, 3 * np.exp(-4 * flow.times), rtol=1e-6)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("rank", [14, 4])
def test_excess_and_gradient_from_maps_are_those_from_decompositions(rng, epsilon, rank):
    # Far from the minimum, near it, at singular matrices: each by the form that is accurate there, in a stack of
    # stacks of targets as alone. ε = 0.6 is above some eigenvalues: directions that stay empty.
    n = 14
    bases = np.linalg.qr(rng.standard_normal((2, 3, n, n))).Q
    spectra = np.sort(rng.uniform(0.3, 3, (2, 3, n)), axis=-1)[..., ::-1]
    loss = BuresWasserstein((bases * spectra[..., None, :]) @ bases.swapaxes(-1, -2), np.full((2, 3), epsilon))
    minimum = np.sqrt(loss.minimum_spectrum(rank))[..., None] * np.eye(n)[:, :rank]
    noise = rng.standard_normal((5, 2, 3, n, rank))
    F = minimum + np.array([1e-6, 1e-3, 0.05, 1.0, 10.0])[:, None, None, None, None] * noise
    F[3, 0, 1, :, 0] = 0  # of a lower rank
    form = loss.form(rank)
    excess, exact_excess = form.excess(F), form.excess_by_svd(F)
    scale = np.sqrt(loss.eigenvalues[..., 0] / exact_excess)
    assert (np.abs(excess / exact_excess - 1) <= 1e-14 * (10 + scale)).all()
    near, gradient = form.near_diagonal().gradient(F), form.gradient(F)
    np.testing.assert_allclose(near, gradient, rtol=0, atol=1e-12 * np.abs(F).max())
    for i in np.ndindex(2, 3):
        one = loss.take(np.ravel_multi_index(i, (2, 3))).form(rank)
        for j in range(5):
            assert one.excess(F[j, *i]) == excess[j, *i]
            np.testing.assert_array_equal(one.near_diagonal().gradient(F[j, *i]), near[j, *i])
