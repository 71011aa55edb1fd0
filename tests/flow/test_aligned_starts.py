"""Times of aligned starts, the algebraic tail at ε = λ_n, and the error of a finite sample."""

import mpmath as mp
import numpy as np
import pytest

from deepbures.flow.gradient_flow import gradient_flow
from deepbures.losses.registry import BuresWasserstein
from deepbures.rates.plateau_times import half_times, mode_times
from deepbures.rates.predicted import algebraic_tail, sharp_rate
from deepbures.rates.sampling import expected_sampling_error


def exact_time(eigenvalue, epsilon, depth, start, end):
    """∫ ds/(4 N s^{2−1/N} (√(λ/(s+ε)) − 1)) at 40 digits, in log s, or in log |s − s*| beside the limit."""
    with mp.workdps(40):
        x, e = mp.mpf(eigenvalue), mp.mpf(epsilon)
        power, limit = 2 - mp.mpf(1) / depth, x - e

        def slowness(s):
            return 1 / (4 * depth * s**power * (mp.sqrt(x / (s + e)) - 1))

        a, b = mp.mpf(start), mp.mpf(end)
        if limit > 0:  # substitute u = log(s/|s − s*|), cut into short pieces
            sign = 1 if a < limit else -1
            u = [mp.log(s / abs(limit - s)) for s in (a, b)]
            cuts = mp.linspace(u[0], u[1], 2 + int(abs(u[1] - u[0])))

            def integrand(v):
                s = limit / (1 + sign * mp.exp(-v))
                return slowness(s) * s * (limit - s) / limit

            return float(mp.quad(integrand, cuts))
        cuts = mp.linspace(mp.log(a), mp.log(b), 2 + int(abs(mp.log(b / a))))
        return float(mp.quad(lambda w: slowness(mp.exp(w)) * mp.exp(w), cuts))


@pytest.mark.parametrize("depth", [1, 2, 10])
@pytest.mark.parametrize(
    ("eigenvalue", "epsilon", "start", "end"),
    [
        (2.0, 0.0, 1e-6, 1.0),
        (2.0, 0.0, 0.5, 2 - 2**-40),
        (2.0, 0.5, 1e-12, 1.4999),
        (2.0, 0.5, 9.0, 1.5 + 2**-30),
        (2.0, 0.5, 1.9, 1.8),
        (1.0, 1.0, 0.25, 1e-6),
        (1.0, 1.5, 2.0, 1e-4),
        (2e-9, 0.5e-9, 1e-14, 1e-9),
        (2e9, 0.5e9, 1e4, 1e9),
    ],
)
def test_mode_times_at_forty_digits(eigenvalue, epsilon, start, end, depth):
    # Relative 1e-10; below, beside and above the limit, at ε = λ and beyond, and in other units.
    expected = exact_time(eigenvalue, epsilon, depth, start, end)
    assert mode_times(eigenvalue, epsilon, depth, start, end) == pytest.approx(expected, rel=1e-10)


def test_mode_times_in_closed_form():
    # N = 1, ε = 0: x = √s obeys dx/dt = 2 (√λ − x), so that t = ½ log((√λ − x_0)/(√λ − x_1)).
    start, end = np.array([0.01, 1.0, 30.0]), np.array([3.9, 3.999999, 4.1])
    expected = np.log((2 - np.sqrt(start)) / (2 - np.sqrt(end))) / 2
    np.testing.assert_allclose(mode_times(4.0, 0.0, 1, start, end), expected, rtol=1e-9)  # the gap of the input
    assert mode_times(4.0, 0.0, 3, 1.0, 1.0) == 0
    assert mode_times(4.0, 0.5, 3, 1.0, 3.5) == np.inf
    assert mode_times(4.0, 0.5, 3, [1.0, 2.0], 3.0).shape == (2,)


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (1.0, 0.5), (1.0, 3.6), (5.0, 3.0), (np.nan, 1.0)])
def test_modes_go_to_their_limit_only(start, end):
    with pytest.raises(ValueError, match=r"^s_final must lie between s_initial > 0 and the limit 3\.5 of the mode$"):
        mode_times(4.0, 0.5, 2, start, end)


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_half_times_are_those_of_the_flow(make_target, depth, epsilon):
    # A small aligned start learns mode after mode: at its half-time each eigenvalue of S is half of λ_j − ε, to 1e-4.
    eigenvalues = np.array([4.0, 2.0, 1.0])
    loss = BuresWasserstein(make_target(eigenvalues, seed=3), epsilon)
    W = 1e-2 * loss.eigenvectors
    times = half_times(eigenvalues, epsilon, depth, 1e-4)
    assert (np.diff(times) > 0).all() if depth > 1 or epsilon else (np.diff(times) < 0.1).all()
    flow = gradient_flow(loss, W, depth, np.sort(times), rtol=1e-10)
    modes = np.sum((loss.eigenvectors.T @ flow.factors) ** 2, axis=-1)
    order = np.argsort(times)
    for sample, mode in enumerate(order):
        assert modes[sample, mode] == pytest.approx((eigenvalues[mode] - epsilon) / 2, rel=1e-4)


def test_half_times_of_modes_that_are_there_or_are_not_learnt():
    # 0 beyond the half; infinite for λ_j ≤ ε.
    times = half_times([3.0, 1.0, 0.5], 0.5, 2, [2.0, 0.01, 0.01])
    assert times[0] == 0
    assert times[1] == pytest.approx(float(mode_times(1.0, 0.5, 2, 0.01, 0.25)), rel=1e-15)
    assert times[2] == np.inf


def test_the_last_stretch_of_a_mode_is_the_sharp_rate():
    # From a gap g to g/e takes 2/sharp_rate: L − L* ~ g².
    for depth in (1, 3):
        time = mode_times(2.0, 0.5, depth, 1.5 - 1e-6, 1.5 - 1e-7)
        assert time == pytest.approx(2 * np.log(10) / sharp_rate(np.array([2.0]), 0.5, depth), rel=1e-5)


# --- ε = λ_n ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 10, 100])
@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9])
def test_algebraic_tail_is_the_limit_of_the_mode(depth, scale):
    # (√(s+λ) − √λ)² at the times of s → 0: within 1 % at s/λ = 1e-6, 1e-4 at 1e-9 (corrections of relative s log s).
    for s, tolerance in ((1e-3, 2e-2), (1e-9, 1e-6)):
        time = mode_times(scale, scale, depth, scale, s * scale)
        loss = (s * scale) ** 2 / (4 * scale) * (1 - s / 2)
        assert algebraic_tail(time, scale, depth) == pytest.approx(loss, rel=tolerance)


@pytest.mark.parametrize(
    ("depth", "predicted", "computed"), [(1, 3.1e-9, 3.14e-9), (10, 3.2e-6, 3.28e-6), (100, 5.8e-7, 5.84e-7)]
)
def test_algebraic_tail_of_a_flow(make_target, depth, predicted, computed):
    # λ_n = ε = 0.05 at t = 1,000: the values of section 9, and a flow in two dimensions that is not stiff.
    found = algebraic_tail(1000, 0.05, depth)
    assert found == pytest.approx(predicted, rel=0.02)
    assert found == pytest.approx(computed, rel=0.03)
    loss = BuresWasserstein(make_target([0.06, 0.05], seed=1), 0.05)
    flow = gradient_flow(loss, loss.eigenvectors * 0.2, depth, [500.0, 1000.0])
    assert flow.excess[-1] == pytest.approx(found, rel=0.03)
    slope = np.log(flow.excess[1] / flow.excess[0]) / np.log(2)
    assert slope == pytest.approx(-2 * depth / (2 * depth - 1), rel=0.02)


def test_algebraic_tail_of_a_repeated_eigenvalue(make_target):
    # g directions with λ = ε add up.
    loss = BuresWasserstein(make_target([0.6, 0.5, 0.5], seed=1), 0.5)
    flow = gradient_flow(loss, loss.eigenvectors * 0.5, 2, [3000.0])
    assert flow.excess[-1] == pytest.approx(algebraic_tail(3000, 0.5, 2, multiplicity=2), rel=0.02)


# --- Finite samples ---------------------------------------------------------------------------------------------


def test_sampling_error_by_hand():
    # One direction: λ/(2m). Two equal ones: (λ/2 + λ/2 + 2 λ/4)/m. Zeros add nothing.
    assert expected_sampling_error([3.0], 100) == pytest.approx(0.015, rel=1e-14)
    assert expected_sampling_error([2.0, 2.0], 10) == pytest.approx(0.3, rel=1e-14)
    assert expected_sampling_error([2.0, 2.0, 0.0], 10) == pytest.approx(0.3, rel=1e-14)
    assert expected_sampling_error([4.0, 1.0], 1) == pytest.approx(2 + 0.5 + 4 / 5, rel=1e-14)
    with pytest.raises(ValueError, match=r"^samples must be at least 1, not 0$"):
        expected_sampling_error([1.0], 0)


@pytest.mark.parametrize("eigenvalues", [[4.0, 2.0, 1.0, 0.5], [3.0, 3.0, 1.0], [2.0, 1.0, 0.0]], ids=str)
def test_sampling_error_by_monte_carlo(rng, eigenvalues):
    # 40,000 samples of m = 1,000, by Bartlett's factor of a Wishart matrix: within four standard errors, each below
    # 0.5 %, and 0.5 % for the second order in 1/m.
    m, n, repetitions = 1000, len(eigenvalues), 40_000
    loss = BuresWasserstein(np.diag(eigenvalues))
    bartlett = np.tril(rng.standard_normal((repetitions, n, n)), -1)
    bartlett[:, range(n), range(n)] = np.sqrt(rng.chisquare(m - np.arange(n), (repetitions, n)))
    factors = np.sqrt(eigenvalues)[:, None] * bartlett / np.sqrt(m)
    errors = loss.value(factors)
    expected = expected_sampling_error(eigenvalues, m)
    standard_error = errors.std(ddof=1) / np.sqrt(repetitions)
    assert standard_error < 0.005 * expected
    assert abs(errors.mean() - expected) < 4 * standard_error + 0.005 * expected
