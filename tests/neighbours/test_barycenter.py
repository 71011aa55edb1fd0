"""Barycenters as targets: the loss and its derivatives, the fixed point, rates, rank bounds, classification."""

import mpmath as mp
import numpy as np
import ot
import pytest
from scipy.optimize import minimize

from deepbures.descent.gradient_descent import gradient_descent
from deepbures.descent.scaled_descent import scaled_descent
from deepbures.flow.gradient_flow import gradient_flow
from deepbures.landscape.curvature import hessian
from deepbures.losses.registry import BuresWasserstein
from deepbures.model.network import DeepLinearNetwork
from deepbures.model.trajectory import StopReason
from deepbures.neighbours.barycenter import (
    Barycenter,
    barycenter,
    draw_covariances,
    rank_bounded_minima,
    truncated,
)

WEIGHTS = np.array([0.4, 0.3, 0.2, 0.1])


@pytest.fixture
def covariances(rng):
    return draw_covariances(rng, 4, 5, 1.5)


def power(S, exponent):
    eigenvalues, basis = np.linalg.eigh(S)
    return (basis * eigenvalues**exponent) @ basis.T


# --- The fixed point --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [0.3, 1, 3])
def test_equals_pot(rng, spread):
    # An independent implementation, to 1e-10 of the largest entry.
    covariances = draw_covariances(rng, 4, 5, spread)
    _, expected = ot.gaussian.bures_wasserstein_barycenter(
        np.zeros((4, 5)), covariances, weights=WEIGHTS, num_iter=10_000, eps=1e-14
    )
    np.testing.assert_allclose(barycenter(covariances, WEIGHTS), expected, atol=1e-10 * np.abs(expected).max())


def test_commuting_covariances_in_closed_form(make_target, rng):
    # Σ_i = Ω diag(λ_i) Ωᵀ: the barycenter is Ω diag((Σ_i w_i √λ_i)²) Ωᵀ, singular directions included.
    basis = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    eigenvalues = np.array([[4, 2, 0, 0], [1, 3, 2, 0], [0.1, 0, 5, 0]])
    covariances = (basis * eigenvalues[:, None, :]) @ basis.T
    weights = [0.5, 0.3, 0.2]
    expected = (basis * (np.array(weights) @ np.sqrt(eigenvalues)) ** 2) @ basis.T
    found = Barycenter(covariances, weights)
    np.testing.assert_allclose(found.covariance, expected, atol=1e-12)
    assert found.excess(power(expected + 1e-30 * np.eye(4), 0.5)) < 1e-12
    # a shared null space is left empty, and filling it costs its variance
    null = np.zeros((4, 4))
    null[:, 0] = 0.3 * basis[:, 3]
    W = np.hstack([basis[:, :3] * np.sqrt(np.diag(basis.T @ expected @ basis)[:3]), null[:, :1]])
    assert found.excess(W) == pytest.approx(0.09, rel=1e-9)
    assert found.value(W) - found.minimum_value(4) == pytest.approx(0.09, rel=1e-9)


def test_fixed_point_equation_in_thirty_digits(covariances):
    # Σ_i w_i (S^{1/2} Σ_i S^{1/2})^{1/2} = S (Agueh and Carlier 2011), evaluated in mpmath.
    S = barycenter(covariances, WEIGHTS)

    def root(matrix):
        eigenvalues, basis = mp.eigsy(matrix)
        return basis * mp.diag([mp.sqrt(value) for value in eigenvalues]) * basis.T

    with mp.workdps(30):
        half = root(mp.matrix(S.tolist()))
        total = mp.zeros(5)
        for weight, covariance in zip(WEIGHTS, covariances, strict=True):
            total += mp.mpf(float(weight)) * root(half * mp.matrix(covariance.tolist()) * half)
        error = np.array((total - mp.matrix(S.tolist())).tolist(), dtype=float)
    assert np.abs(error).max() < 1e-14 * np.abs(S).max() * 5


@pytest.mark.parametrize(("spread", "most"), [(0.5, 5), (1.5, 6), (5.0, 14)])
def test_few_decompositions_reach_the_fixed_point(rng, monkeypatch, spread, most):
    # Newton's method: S = T̄ S T̄ by the residual of the equation to 20 eps, up to condition 1e6; the iteration agrees.
    covariances, calls = draw_covariances(rng, 8, 6, spread), []
    decompose = np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda a: (calls.append(a.ndim), decompose(a))[1])
    S = barycenter(covariances)
    assert calls.count(3) <= most + 1  # the check of the input is one of them
    half = power(S, 0.5)
    mean = np.mean([power(half @ C @ half, 0.5) for C in covariances], axis=0)
    assert np.linalg.norm(mean - S) < 20 * np.finfo(float).eps * np.linalg.norm(S) * max(1.0, 10.0 ** (spread - 3))
    monkeypatch.setattr("deepbures.neighbours.barycenter.newton", lambda *_: None)
    np.testing.assert_allclose(barycenter(covariances), S, atol=1e-11 * np.abs(S).max())


def test_a_half_step_is_the_fixed_point_iteration(covariances, rng):
    # S⁺ = T̄ S T̄ (Álvarez-Esteban et al. 2016), the maps in their other form.
    loss = Barycenter(covariances, WEIGHTS)
    W = rng.standard_normal((5, 5))
    S = W @ W.T
    half, inverse = power(S, 0.5), power(S, -0.5)
    mean_map = sum(
        w * inverse @ power(half @ C @ half, 0.5) @ inverse for w, C in zip(WEIGHTS, covariances, strict=True)
    )
    step = W - loss.gradient(W) / 2
    np.testing.assert_allclose(step @ step.T, mean_map @ S @ mean_map, atol=1e-9)


# --- The loss ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0, 0.05])
@pytest.mark.parametrize("columns", [2, 5, 7])
def test_is_the_weighted_sum_of_losses(covariances, rng, epsilon, columns):
    loss = Barycenter(covariances, WEIGHTS, epsilon)
    losses = [BuresWasserstein(C, epsilon) for C in covariances]
    W, V = rng.standard_normal((2, 3, 5, columns))
    for name in ("value", "gradient"):
        expected = sum(w * getattr(one, name)(W) for w, one in zip(WEIGHTS, losses, strict=True))
        np.testing.assert_allclose(getattr(loss, name)(W), expected, rtol=1e-10, atol=1e-11)
    expected = sum(w * one.hessian_product(W, V) for w, one in zip(WEIGHTS, losses, strict=True))
    np.testing.assert_allclose(loss.hessian_product(W, V), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("epsilon", [0, 0.05])
@pytest.mark.parametrize("columns", [1, 3, 5, 7])
def test_excess_is_the_difference_to_the_barycenter(covariances, rng, epsilon, columns):
    loss = Barycenter(covariances, WEIGHTS, epsilon)
    W = rng.standard_normal((5, columns))
    difference = loss.value(W) - loss.minimum_value(5)
    assert loss.excess(W) == pytest.approx(difference, rel=1e-10)
    at_minimum = loss.eigenvectors * np.sqrt(loss.minimum_spectrum(5))
    assert loss.excess(at_minimum) < 1e-25
    # Near it the excess is of second order, far below the digits of the difference: 100 for a tenth of the distance.
    V = rng.standard_normal((5, 5))
    excess = [loss.excess(at_minimum + h * V) for h in (1e-9, 1e-10)]
    assert excess[0] / excess[1] == pytest.approx(100, rel=1e-3)


def test_covariances_of_mixed_ranks(rng):
    factors = [rng.standard_normal((4, columns)) for columns in (1, 2, 4, 4)]
    covariances = np.array([F @ F.T for F in factors])
    loss = Barycenter(covariances)
    W = rng.standard_normal((4, 4))
    assert loss.value(W) == pytest.approx(np.mean([BuresWasserstein(C).value(W) for C in covariances]), rel=1e-12)
    assert np.linalg.norm(loss.gradient(power(loss.covariance, 0.5))) < 1e-12
    # a minimum: a second solver finds nothing lower
    found = minimize(
        lambda w: loss.value(w.reshape(4, 4)), W.ravel(), jac=lambda w: loss.gradient(w.reshape(4, 4)).ravel()
    )
    assert found.fun == pytest.approx(float(loss.minimum_value(4)), rel=1e-7)
    assert found.fun >= loss.minimum_value(4) * (1 - 1e-12)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_unit_does_not_matter(covariances, rng, scale):
    W = rng.standard_normal((5, 5))
    loss, scaled = Barycenter(covariances, WEIGHTS), Barycenter(scale * covariances, WEIGHTS)
    np.testing.assert_allclose(scaled.covariance, scale * loss.covariance, rtol=1e-9, atol=1e-12 * scale)
    assert scaled.excess(np.sqrt(scale) * W) == pytest.approx(scale * loss.excess(W), rel=1e-10)


# --- Descent and flow -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [1, 3])
def test_rate_of_descent_comes_from_the_hessian(rng, spread):
    # Step ½ on one layer: the excess shrinks by max (1 − r/2)², r the nonzero eigenvalues of ∇²F, within 1 %.
    # Started along the slowest of them: the tail begins at once.
    loss = Barycenter(draw_covariances(rng, 4, 5, spread), WEIGHTS)
    optimum = loss.eigenvectors * np.sqrt(loss.eigenvalues)
    eigenvalues, modes = np.linalg.eigh(hessian(loss, optimum))
    rates = eigenvalues[10:]  # 10 zeros for the rotations
    assert np.abs(eigenvalues[:10]).max() < 1e-9 < rates[0]
    assert rates[-1] <= 2 + 1e-9
    start = optimum + 1e-3 * np.sqrt(loss.eigenvalues[-1]) * modes[:, 10].reshape(5, 5)
    excess = gradient_descent(loss, [start], 0.5, 5, np.arange(6)).excess
    factor = (excess[5] / excess[2]) ** (1 / 3)
    assert factor == pytest.approx((1 - rates[0] / 2) ** 2, rel=0.01)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_networks_of_any_depth_find_the_barycenter(covariances, rng, depth):
    loss = Barycenter(covariances, WEIGHTS)
    start = rng.standard_normal((5, 5))
    steps = scaled_descent(loss, DeepLinearNetwork.balanced(start, depth), excess_tolerance=1e-22)
    assert steps.stop_reason == StopReason.CONVERGED
    np.testing.assert_allclose(steps.final, loss.covariance, atol=1e-10)
    flow = gradient_flow(loss, start, depth, max_time=1e4, excess_tolerance=1e-18)
    assert flow.stop_reason == StopReason.CONVERGED
    np.testing.assert_allclose(flow.final, loss.covariance, atol=1e-7)
    # the flow lowers the loss throughout
    assert np.all(np.diff(flow.excess) < 0)


def test_descent_lemma_holds_for_the_sum(covariances, rng):
    loss = Barycenter(covariances, WEIGHTS)
    W, eta = rng.standard_normal((100, 5, 3)), rng.uniform(0, 1, 100)
    gradient = loss.gradient(W)
    promised = eta * (1 - eta) * np.sum(gradient**2, axis=(1, 2))
    assert np.all(loss.value(W - eta[:, None, None] * gradient) <= loss.value(W) - promised + 1e-12 * loss.value(W))


# --- Bounded rank -----------------------------------------------------------------------------------------------


def test_a_strict_local_minimum_that_is_not_global():
    # Found at spread 2, k = 1: unlike for one target, descent can end above the minimum.
    loss, starts = spurious_case()
    minima = rank_bounded_minima(loss, 1, starts)
    assert len(minima) >= 2
    best, other = minima[:2]
    assert other.value > best.value * (1 + 1e-3)
    assert min(best.curvature, other.curvature) > 0.1
    assert sum(m.reached for m in minima) == len(starts)
    # A second opinion, without our Hessian: BFGS from a point nearby comes back to it, and not to the lower one.
    rng = np.random.default_rng(0)
    for minimum in (best, other):
        for _ in range(5):
            near = minimum.factor + 0.05 * np.linalg.norm(minimum.factor) * rng.standard_normal((5, 1)) / np.sqrt(5)
            found = minimize(
                lambda w: loss.value(w[:, None]), near[:, 0], jac=lambda w: loss.gradient(w[:, None])[:, 0]
            )
            assert found.fun == pytest.approx(minimum.value, rel=1e-8)


def spurious_case():
    """The first of the drawn sets with two minima of rank 1, and starts that reach them."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        loss = Barycenter(draw_covariances(rng, 4, 5, 2))
        starts = np.concatenate([[truncated(loss, 1)], rng.standard_normal((30, 5, 1))])
        if len(rank_bounded_minima(loss, 1, starts)) > 1:
            return loss, starts
    raise AssertionError("no set with two minima among twenty")


@pytest.mark.parametrize("ratio", [1e-4, 0.01, 0.1, 0.5])
@pytest.mark.parametrize("side", [-1, 1])
def test_two_turned_ellipses_in_closed_form(rng, ratio, side):
    # docs/neighbours/barycenters.md: Σ_1 = diag(a, b) and Σ_1 turned by φ have a second minimum of rank 1, across the
    # bisector of their long axes if and only if cos φ < (1 − √(b/a))/(1 + √(b/a)).
    a, b = 2.0, 2.0 * ratio
    threshold = (1 - np.sqrt(ratio)) / (1 + np.sqrt(ratio))
    cosine = threshold * (1 + 0.05 * side) if threshold * (1 + 0.05 * side) < 1 else (1 + threshold) / 2
    phi = np.arccos(cosine)
    turn = np.array([[cosine, -np.sin(phi)], [np.sin(phi), cosine]])
    loss = Barycenter([np.diag([a, b]), turn @ np.diag([a, b]) @ turn.T])
    across = np.array([-np.sin(phi / 2), np.cos(phi / 2)])
    starts = across + 1e-3 * rng.standard_normal((6, 2))
    minima = rank_bounded_minima(loss, 1, [*starts[..., None], truncated(loss, 1)])
    values = [(a + b) / 2 - (a - b) / 2 * cosine, (a + b) / 2 + (a - b) / 2 * cosine]
    assert [minimum.value for minimum in minima] == pytest.approx(values[: 2 if side < 0 else 1], rel=1e-10)
    if side < 0:
        assert abs(minima[1].factor[:, 0] @ across) == pytest.approx(np.linalg.norm(minima[1].factor), rel=1e-9)


def test_the_truncated_barycenter_is_not_the_minimiser(rng):
    loss = Barycenter(draw_covariances(rng, 4, 5, 2))
    start = truncated(loss, 2)
    (best, *_) = rank_bounded_minima(loss, 2, [start])
    assert np.linalg.norm(loss.gradient(start)) > 1e-3
    assert best.value < loss.value(start) * (1 - 1e-4)
    assert best.gradient_norm <= 1e-9
    # the Hessian of `landscape` has the same least eigenvalue, next to one zero for the rotation
    eigenvalues = np.linalg.eigvalsh(hessian(loss, best.factor))
    assert np.sort(np.abs(eigenvalues))[0] < 1e-7
    assert best.curvature == pytest.approx(np.sort(eigenvalues[np.abs(eigenvalues) > 1e-7])[0], rel=1e-6)


def test_one_target_has_one_minimum(make_target, rng):
    # Eckart-Young: the truncated target, and nothing else.
    loss = Barycenter(make_target([5, 3, 2, 1])[None])
    minima = rank_bounded_minima(loss, 2, rng.standard_normal((20, 4, 2)))
    assert [m.reached for m in minima] == [20]
    assert minima[0].value == pytest.approx(3, rel=1e-9)


# --- Classification ---------------------------------------------------------------------------------------------


# --- Bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Barycenter(np.eye(3)), "at least 3 axes"),
        (lambda: Barycenter(np.ones((1, 2, 2, 2))), "a stack (m, n, n)"),
        (lambda: Barycenter([np.eye(2), -np.eye(2)]), "positive semidefinite"),
        (lambda: Barycenter([np.eye(2), np.eye(2)], [0.5, 0.6]), "2 positive numbers with sum 1, not [0.5, 0.6]"),
        (lambda: Barycenter([np.eye(2), np.eye(2)], [1.0, 0.0]), "2 positive numbers"),
        (lambda: Barycenter([np.eye(2), np.eye(2)], [1.0]), "2 positive numbers"),
        (lambda: Barycenter([np.eye(2)], epsilon=-1), "epsilon must be a finite number ≥ 0"),
        (lambda: Barycenter([np.eye(2)], epsilon=2), "at most the least eigenvalue of the barycenter, 1, not 2"),
        (lambda: Barycenter([np.eye(2)]).minimum(1), "no closed form"),
        (lambda: Barycenter([np.eye(2)]).saddle_values(1), "a single target"),
        (lambda: rank_bounded_minima(Barycenter([np.eye(2)]), 2, np.ones((1, 2, 2))), "between 1 and n − 1 = 1, not 2"),
        (lambda: rank_bounded_minima(Barycenter([np.eye(2)]), 1, np.ones((1, 3, 1))), "shape (p, 2, 1)"),
        (lambda: rank_bounded_minima(Barycenter([np.eye(2)], epsilon=0.1), 1, np.ones((1, 2, 1))), "epsilon = 0"),
        (lambda: draw_covariances(np.random.default_rng(0), 0, 3, 1), "at least 1"),
        (lambda: draw_covariances(np.random.default_rng(0), 1, 3, -1), "spread must be"),
    ],
)
def test_bad_input_gives_one_line(call, message):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        call()
    assert message in str(error.value)
