"""Invariants over sizes, ranks, depths, smoothings and bad spectra; and high precision on small cases."""

import itertools

import exact
import mpmath as mp
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from deepbures.descent.gradient_descent import gradient_descent
from deepbures.flow.gradient_flow import gradient_flow
from deepbures.losses.registry import BuresWasserstein, Frobenius
from deepbures.model.network import DeepLinearNetwork
from deepbures.rates.predicted import rates_at_minimum
from deepbures.rates.program_constants import program_constants

EPS = np.finfo(float).eps
FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@st.composite
def problems(draw, largest=30):
    """Loss, W and its rank: n = 1..30, any rank; spectra that decay, repeat or end in zeros, condition up to 1e12."""
    n = draw(st.integers(1, largest))
    k = draw(st.integers(1, n))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.sampled_from(["decaying", "repeated", "clustered", "singular"]))
    condition = 10.0 ** draw(st.integers(0, 12))
    spectrum = np.geomspace(1, 1 / condition, n) if n > 1 else np.ones(1)
    if shape == "repeated":
        spectrum = np.repeat(spectrum[::3], 3)[:n]
    elif shape == "clustered":
        spectrum = 1 + 1e-9 * np.arange(n)[::-1] / n
    elif shape == "singular":
        spectrum = np.where(np.arange(n) < max(1, n // 2), spectrum, 0.0)
    spectrum = spectrum * 10.0 ** draw(st.integers(-4, 4))
    basis = np.linalg.qr(rng.standard_normal((n, n)))[0]
    covariance = (basis * spectrum) @ basis.T
    covariance = (covariance + covariance.T) / 2
    kind = draw(st.sampled_from(["zero", "small", "an eigenvalue", "above", "frobenius"]))
    epsilon = {"zero": 0.0, "small": 1e-3 * spectrum[0], "above": 2 * spectrum[0]}.get(kind, float(spectrum[n // 2]))
    loss = Frobenius(covariance) if kind == "frobenius" else BuresWasserstein(covariance, epsilon)
    W = np.sqrt(spectrum[0]) * rng.standard_normal((n, k)) @ rng.standard_normal((k, n)) / n
    return loss, W, k


def size_of(loss, W):
    """What the terms of the loss are as large as."""
    S, target = float(np.sum(W**2)), float(loss.eigenvalues.sum())
    return (S + target) ** 2 if isinstance(loss, Frobenius) else S + target + loss.dimension * float(loss.epsilon)


def rotated(loss, Q):
    covariance = Q @ loss.covariance @ Q.T
    covariance = (covariance + covariance.T) / 2
    return Frobenius(covariance) if isinstance(loss, Frobenius) else BuresWasserstein(covariance, loss.epsilon)


# --- The losses -------------------------------------------------------------------------------------------------


@FEW
@given(problems())
def test_loss_and_excess_are_numbers_of_the_right_sign(problem):
    loss, W, k = problem
    value, excess, gradient = float(loss.value(W)), float(loss.excess(W, k)), loss.gradient(W)
    tolerance = 100 * EPS * size_of(loss, W)
    assert np.isfinite([value, excess]).all()
    assert np.isfinite(gradient).all()
    assert gradient.shape == W.shape
    assert value >= -tolerance
    assert excess >= -tolerance
    assert abs(value - float(loss.minimum_value(k)) - excess) <= 10 * tolerance  # L = L* + (L − L*)


@FEW
@given(problems(), st.integers(0, 2**32))
def test_loss_does_not_see_rotations(problem, seed):
    # L_{PΣPᵀ}(P W Q) = L_Σ(W) for orthogonal P, Q, up to the root of the rotated target: √eps of a zero eigenvalue.
    loss, W, _k = problem
    rng = np.random.default_rng(seed)
    n = loss.dimension
    P, Q = (np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(2))
    other = rotated(loss, P)
    tolerance = (
        100 * n * np.sqrt(EPS) * size_of(loss, W)
        if loss.eigenvalues[-1] < 1e-10 * loss.eigenvalues[0]
        else (1e5 * EPS * size_of(loss, W))
    )
    assert abs(float(other.value(P @ W @ Q)) - float(loss.value(W))) <= tolerance


@FEW
@given(problems(), st.sampled_from([1e-6, 0.25, 3.0, 1e6]))
def test_loss_scales_with_the_target(problem, c):
    # L_{cΣ, cε}(√c W) = c L_{Σ,ε}(W), ∇L → √c ∇L; of the Frobenius loss c² and c^{3/2}.
    loss, W, _ = problem
    square = isinstance(loss, Frobenius)
    scaled = Frobenius(c * loss.covariance) if square else BuresWasserstein(c * loss.covariance, c * loss.epsilon)
    power = 2 if square else 1
    size = size_of(loss, W)
    assert abs(float(scaled.value(np.sqrt(c) * W)) / c**power - float(loss.value(W))) <= 1e4 * EPS * size
    error = np.abs(scaled.gradient(np.sqrt(c) * W) / c ** (power - 0.5) - loss.gradient(W)).max()
    limit = (
        1e-3 if loss.eigenvalues[-1] < 1e-10 * loss.eigenvalues[0] else 1e-6
    )  # √μ of a bad spectrum in the transport map
    assert error <= limit * max(np.abs(loss.gradient(W)).max(), np.abs(W).max(), 1e-300)


# --- Training ---------------------------------------------------------------------------------------------------


DEPTHS = st.sampled_from([1, 2, 3, 5, 10, 31, 100, 317, 1000])


@FEW
@given(problems(12), DEPTHS)
def test_flow_falls_whatever_the_problem(problem, depth):
    # From a balanced start, over at most 30 steps: no NaN, no increase of the loss.
    loss, W, _k = problem
    W = W * min(1.0, np.sqrt(loss.eigenvalues[0]) / np.linalg.norm(W, 2))
    flow = gradient_flow(loss, W, depth, max_time=1e3, max_steps=30, samples=20)
    assert np.isfinite(flow.excess).all()
    assert np.isfinite(flow.factors).all()
    tolerance = 1e3 * EPS * size_of(loss, W)
    assert (np.diff(flow.excess) <= tolerance).all()
    assert (flow.excess >= -tolerance).all()


@FEW
@given(problems(8), st.sampled_from([1, 2, 3, 10, 100]))
def test_descent_with_a_small_step_falls_and_keeps_balance(problem, depth):
    loss, W, _k = problem
    W = W * min(1.0, np.sqrt(loss.eigenvalues[0]) / np.linalg.norm(W, 2))
    network = DeepLinearNetwork.balanced(W, depth)
    gradients = network.layer_gradients(loss.gradient(network.end_to_end()))
    slope = float(np.sqrt(sum(np.sum(g**2) for g in gradients)))
    weight = float(max(np.linalg.norm(layer) for layer in network.layers))
    largest = float(loss.eigenvalues[0])
    # ‖Jᵀ ∇²L J‖ ≤ 2 N ‖W‖^{2−2/N} for Bures-Wasserstein, at most 12 λ_1 times the half of it for the square loss.
    curvature = 2 * depth * largest ** (1 - 1 / depth) * (6 * largest if isinstance(loss, Frobenius) else 1)
    eta = min(1e-2 / curvature, 1e-6 * weight / max(slope * depth, 1e-300))
    descent = gradient_descent(loss, network.layers, eta, 5, range(6))
    assert np.isfinite(descent.loss).all()
    assert (np.diff(descent.excess) <= 1e3 * EPS * size_of(loss, W)).all()
    drift = descent.balancedness[-1]
    assert drift <= 10 * (eta * slope) ** 2 * depth + 1e-10 * weight**2


@FEW
@given(problems(), st.integers(1, 1000))
def test_constants_and_rates_are_numbers(problem, depth):
    # Of ε ≤ λ_n > 0, where they are defined; they are logarithms where they leave the range of doubles.
    loss, _, _ = problem
    assume(isinstance(loss, BuresWasserstein) and loss.eigenvalues[-1] > 0 and loss.epsilon <= loss.eigenvalues[-1])
    rates = rates_at_minimum(loss, depth)
    assert np.isfinite(rates).all()
    assert (rates >= -1e-12 * rates.max()).all()
    constants = program_constants(loss.eigenvalues, float(loss.epsilon), depth, 0.5 * float(loss.eigenvalues[-1]))
    assert not np.isnan([constants.margin, constants.K, constants.M, constants.bound_rate]).any()


# --- Fifty digits -----------------------------------------------------------------------------------------------


def exact_gradient(W, covariance, epsilon, i, j):
    """∂L/∂W_ij by a central difference with step 1e-30 in 120 digits: error below 1e-50."""
    with mp.workdps(exact.DIGITS):
        h = mp.mpf(10) ** -30

        def value(sign):
            moved = mp.matrix(W.tolist())
            moved[i, j] += sign * h
            smoothed = moved * moved.T + mp.mpf(float(epsilon)) * mp.eye(moved.rows)
            target = mp.matrix(covariance.tolist())
            R = exact._root(target)
            roots = [mp.sqrt(max(mu, 0)) for mu in mp.eigsy(R * smoothed * R, eigvals_only=True)]
            return exact._trace(smoothed) + exact._trace(target) - 2 * mp.fsum(roots)

        return (value(1) - value(-1)) / (2 * h)


@pytest.mark.parametrize("epsilon", [0.0, 1e-4, 0.3])
def test_gradient_in_fifty_digits(make_target, rng, epsilon):
    # Relative to the largest entry: 1e-12.
    covariance, W = make_target([3.0, 1.0, 0.2]), rng.standard_normal((3, 3))
    gradient = BuresWasserstein(covariance, epsilon).gradient(W)
    expected = np.array([[float(exact_gradient(W, covariance, epsilon, i, j)) for j in range(3)] for i in range(3)])
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def error_of_flow(sigma_0, sigma, time, eigenvalue, epsilon, depth):
    """Error of σ(t) by dσ/dt = −2 N σ^{3−2/N} (1 − √λ/√(σ²+ε)), one direction of a diagonal problem.

    The exact time at which σ is reached is the integral of dσ / (dσ/dt), here in 50 digits.
    """
    with mp.workdps(50):
        N, lam, eps = mp.mpf(depth), mp.mpf(eigenvalue), mp.mpf(epsilon)

        def speed(s):
            return -2 * N * s ** (3 - 2 / N) * (1 - mp.sqrt(lam) / mp.sqrt(s * s + eps))

        reached = mp.quad(lambda s: 1 / speed(s), mp.linspace(mp.mpf(sigma_0), mp.mpf(float(sigma)), 5))
        return float((reached - mp.mpf(float(time))) * speed(mp.mpf(float(sigma))))


@pytest.mark.parametrize(("epsilon", "depth"), [(0.05, 1), (0.05, 3), (0.0, 2), (0.3, 10), (0.05, 100)])
def test_flow_of_a_diagonal_problem_in_fifty_digits(epsilon, depth):
    # Singular values to 1e-9 relative at rtol 1e-11.
    eigenvalues, start = np.array([2.0, 0.5]), np.array([0.3, 0.9])
    times = np.array([0.05, 0.2, 0.5]) / depth
    flow = gradient_flow(BuresWasserstein(np.diag(eigenvalues), epsilon), np.diag(start), depth, times, rtol=1e-11)
    S = flow.factors @ flow.factors.mT
    assert len(flow.times) == 3
    for i, (t, covariance) in itertools.product(range(2), zip(flow.times, S, strict=True)):
        sigma = np.sqrt(covariance[i, i])
        assert abs(error_of_flow(start[i], sigma, t, eigenvalues[i], epsilon, depth)) < 1e-9 * sigma
    assert np.abs(S[:, 0, 1]).max() < 1e-13
