"""The Sinkhorn loss against 50 digits, and what is proved of it in docs/sinkhorn.md."""

import mpmath
import numpy as np
import pytest
from scipy.special import logsumexp

from deepbures.flow.gradient_flow import gradient_flow
from deepbures.landscape import critical_points
from deepbures.landscape.curvature import hessian, network_hessian
from deepbures.losses.registry import BuresWasserstein, Sinkhorn
from deepbures.losses.sinkhorn import HIGHEST_CURVATURE

EPS = np.finfo(float).eps
SPECTRUM = np.array([4.0, 3, 2, 1.5, 1])
HARD = np.array([1e3, 1, 1e-3, 1e-3 * (1 - 1e-3), 1e-6, 0])


def exact_excess(eigenvalues, F, blur, rank):
    """L − L* at a factor F in the eigenbasis, from the formulas of the loss in 60 digits."""
    with mpmath.workdps(60):
        lam, variance = [mpmath.mpf(float(value)) for value in eigenvalues], mpmath.mpf(blur) ** 2

        def phi(x):
            d = mpmath.sqrt(4 * abs(x) + variance**2)
            return d - variance * mpmath.log(d + variance)

        F = mpmath.matrix(F.tolist())
        S, R = F * F.T, mpmath.diag([mpmath.sqrt(value) for value in lam])
        own, mixed = (mpmath.eigsy(matrix, eigvals_only=True) for matrix in (S, R * S * R))
        value = sum(phi(x**2) for x in own) / 2 + sum(phi(x**2) for x in lam) / 2 - sum(map(phi, mixed))
        return value - sum(phi(x**2) - phi(mpmath.mpf(0)) for x in lam[rank:]) / 2


@pytest.mark.parametrize("blur", [1e-6, 0.1, 30])
@pytest.mark.parametrize(
    ("spectrum", "rank", "columns"), [(SPECTRUM, 5, 5), (SPECTRUM, 2, 2), (SPECTRUM, 2, 5), (HARD, 3, 3)], ids=str
)
def test_excess_keeps_its_digits(rng, spectrum, rank, columns, blur):
    """The relative error is a few roundings of W, eps √(λ_1/(L − L*)), 20 at most, next to the minimum, too."""
    loss = Sinkhorn.from_spectrum(spectrum, None, blur)
    for distance in (1, 1e-3, 1e-6):
        F = np.zeros((len(spectrum), columns))
        F[:rank, :rank] = np.diag(np.sqrt(spectrum[:rank]))
        F[:, :rank] += distance * rng.standard_normal((len(spectrum), rank))
        exact = exact_excess(spectrum, F, blur, rank)
        unit = EPS * np.sqrt(spectrum[0] / float(exact))
        assert abs(float((float(loss.excess(F, rank)) - exact) / exact)) < 20 * max(unit, EPS)


def entropic_cost(x, a, b, regularization):
    """min ∫ |x − y|² dπ + regularization · KL(π | a ⊗ b) on a grid, by Sinkhorn's iteration in logarithms."""
    cost, f, g = (x[:, None] - x) ** 2 / regularization, np.zeros_like(x), np.zeros_like(x)
    for _ in range(60):
        f = -logsumexp(g + np.log(b) - cost, axis=1)
        g = -logsumexp(f[:, None] + np.log(a)[:, None] - cost, axis=0)
    return regularization * (a @ f + b @ g)


@pytest.mark.parametrize(("s", "lam", "blur"), [(0.5, 2.0, 0.7), (3.0, 1.0, 1.5)])
def test_value_is_the_debiased_entropic_cost_on_a_grid(s, lam, blur):
    """With the regularization 2 σ²: the closed form against a solver that knows nothing of Gaussians."""
    x = np.linspace(-10, 10, 141)
    a, b = (weights / weights.sum() for weights in (np.exp(-(x**2) / (2 * variance)) for variance in (s, lam)))
    mixed, own, target = (entropic_cost(x, p, q, 2 * blur**2) for p, q in ((a, b), (a, a), (b, b)))
    value = float(Sinkhorn([[lam]], blur).value([[np.sqrt(s)]]))
    assert value == pytest.approx(mixed - own / 2 - target / 2, rel=1e-6)


@pytest.mark.parametrize("columns", [2, 5, 7])
@pytest.mark.parametrize("blur", [0.1, 0.7, 10])
def test_derivatives_are_limits_of_differences(make_target, rng, blur, columns):
    loss = Sinkhorn(make_target(SPECTRUM), blur)
    W, V = rng.standard_normal((2, 5, columns))
    h = 1e-5
    slope = (loss.value(W + h * V) - loss.value(W - h * V)) / (2 * h)
    assert slope == pytest.approx(np.sum(loss.gradient(W) * V), rel=1e-8, abs=1e-8 * np.linalg.norm(loss.gradient(W)))
    change = (loss.gradient(W + h * V) - loss.gradient(W - h * V)) / (2 * h)
    product = loss.hessian_product(W, V)
    np.testing.assert_allclose(product, change, rtol=0, atol=1e-8 * np.abs(product).max())


def test_stacks_equal_loops(make_target, rng):
    targets = np.stack([make_target(spectrum) for spectrum in (SPECTRUM, 2 * SPECTRUM)])
    stack, W, V = Sinkhorn(targets, 0.5), *rng.standard_normal((2, 2, 5, 3))
    for i in range(2):
        single = stack.take(i)
        assert single.blur == 0.5
        np.testing.assert_allclose(stack.excess(W, 3)[i], single.excess(W[i], 3), rtol=1e-12)
        np.testing.assert_allclose(stack.gradient(W)[i], single.gradient(W[i]), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(stack.hessian_product(W, V)[i], single.hessian_product(W[i], V[i]), atol=1e-11)


@pytest.mark.parametrize("rank", [2, 5])
def test_no_blur_is_the_bures_distance(make_target, rng, rank):
    """The difference falls at least like σ², up to a logarithm."""
    target, W = make_target(SPECTRUM), rng.standard_normal((5, rank))
    limit = float(BuresWasserstein(target).value(W))
    differences = [abs(float(Sinkhorn(target, blur).value(W)) - limit) for blur in (1e-1, 1e-2, 1e-3)]
    assert differences[1] < differences[0] / 20
    assert differences[2] < differences[1] / 20


def test_a_scaled_problem_has_a_scaled_loss(make_target, rng):
    target, W = make_target(SPECTRUM), rng.standard_normal((5, 3))
    loss = Sinkhorn(target, 0.5)
    assert float(Sinkhorn(9 * target, 1.5).value(3 * W)) == pytest.approx(9 * float(loss.value(W)), rel=1e-12)
    assert float(loss.normalized().value(W / 2)) == pytest.approx(float(loss.value(W)) / 4, rel=1e-12)


@pytest.mark.parametrize("kept", [[0, 1, 2, 3, 4], [0, 2, 3], [4], []], ids=str)
@pytest.mark.parametrize("blur", [0.05, 0.5, 3])
def test_critical_points_are_where_they_are_without_smoothing(blur, kept):
    loss = Sinkhorn.from_spectrum(SPECTRUM, None, blur)
    W = np.diag(np.sqrt(SPECTRUM) * np.isin(np.arange(5), kept))
    assert np.abs(loss.gradient(W)).max() < 1e-14
    assert float(loss.value(W)) == pytest.approx(np.delete(loss.empty_costs(), kept).sum(), rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("kept", [(0, 1), (0, 3), (1,)], ids=str)
def test_local_rates_are_the_spectrum_of_the_hessian(kept, depth):
    loss = Sinkhorn.from_spectrum(SPECTRUM, None, 0.6)
    network = critical_points.network(loss, kept, depth, 2)
    eigenvalues = np.linalg.eigvalsh(network_hessian(loss, network.layers))
    rates = critical_points.local_spectrum(loss, kept, depth, 2).rates
    found = eigenvalues[np.abs(eigenvalues) > 1e-9 * np.abs(eigenvalues).max()]
    np.testing.assert_allclose(found, np.sort(rates[rates != 0]), rtol=1e-9)


@pytest.mark.parametrize("rank", [2, 5])
def test_excess_by_direction_is_the_excess_near_the_minimum(rng, rank):
    loss = Sinkhorn.from_spectrum(SPECTRUM, None, 0.6)
    W = loss.minimum_factor(rank) + 1e-6 * rng.standard_normal((5, rank))
    assert np.concatenate(loss.excess_by_direction(W, rank)).sum() == pytest.approx(loss.excess(W, rank), rel=1e-4)


def test_hessian_stays_between_its_bounds_and_comes_close_to_both(rng):
    lowest, highest = 0.0, 0.0
    for _ in range(200):
        n = int(rng.integers(1, 5))
        columns = int(rng.integers(1, n + 1))
        spectrum = np.sort(10 ** rng.uniform(-3, 1, n))[::-1]
        loss = Sinkhorn.from_spectrum(spectrum, None, 10 ** rng.uniform(-1.5, 0.5))
        W = rng.standard_normal((n, columns)) * 10 ** rng.uniform(-3, 1, columns)
        eigenvalues, (lower, upper) = np.linalg.eigvalsh(hessian(loss, W)), loss.hessian_bounds()
        assert eigenvalues[0] >= lower * (1 + 1e-9)
        assert eigenvalues[-1] <= upper * (1 + 1e-9)
        lowest, highest = max(lowest, eigenvalues[0] / lower), max(highest, eigenvalues[-1] / upper)
    assert lowest > 0.999
    assert highest > 0.97


def test_highest_curvature_is_attained_without_a_target():
    """Where 4 S²/σ⁴ + 1 = (1 + √3)²."""
    blur, d = 0.5, 1 + np.sqrt(3)
    loss = Sinkhorn.from_spectrum([1e-12], None, blur)
    W = np.array([[blur * np.sqrt(np.sqrt(d**2 - 1) / 2)]])
    assert hessian(loss, W)[0, 0] == pytest.approx(HIGHEST_CURVATURE, rel=1e-9)


@pytest.mark.parametrize("blur", [0.2, 1])
def test_linear_part_of_the_flow(make_target, rng, blur):
    """Q ∘ E is the derivative of B S + S B at a diagonal S."""
    loss = Sinkhorn.from_spectrum(SPECTRUM, None, blur)
    s = rng.uniform(0.1, 4, 5)
    E = rng.standard_normal((5, 5))
    E, h = E + E.T, 1e-6

    def velocity(S):
        values, vectors = np.linalg.eigh(S)
        F = vectors * np.sqrt(values)
        return loss.gradient(F) @ F.T + F @ loss.gradient(F).T

    np.testing.assert_allclose(np.diag(velocity(np.diag(s))), 2 * loss.multiplier(s) * s, rtol=1e-9)
    change = (velocity(np.diag(s) + h * E) - velocity(np.diag(s) - h * E)) / (2 * h)
    np.testing.assert_allclose(loss.curvature(s) * E, change, atol=1e-7 * np.abs(change).max())
    np.testing.assert_array_equal(loss.curvature(s, np.array([1, 3])), loss.curvature(s)[:, [1, 3]])


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("rank", [2, 5])
def test_flow_ends_at_the_target_itself(make_target, rng, depth, rank):
    target = make_target(SPECTRUM)
    loss = Sinkhorn(target, 0.5)
    start = rng.standard_normal((5, rank)) / 4
    trajectory = gradient_flow(loss, start, depth, rank=rank, excess_tolerance=1e-14, max_time=1e3)
    assert trajectory.stop_reason == "converged"
    np.testing.assert_allclose(trajectory.final, loss.minimum(rank)[0], atol=1e-5)
    if rank == 5:
        rate = loss.proved_rate(depth, np.linalg.svd(start, compute_uv=False)[-1])
        assert rate > 0
        assert np.all(trajectory.excess <= trajectory.excess[0] * np.exp(-rate * trajectory.times) * (1 + 1e-9))


@pytest.mark.parametrize("depth", [1, 3])
def test_tail_at_a_singular_target(depth):
    """L ≈ ((8 N − 4) t/σ²)^{−2N/(2N−1)}/(2 σ²), from s ≪ σ² on."""
    blur = 0.8
    loss = Sinkhorn.from_spectrum([2.0, 0.0], None, blur)
    trajectory = gradient_flow(loss, np.eye(2), depth, times=[1e5, 2e5], max_time=2e5, rtol=1e-10)
    expected = loss.tail_constant(depth) * trajectory.times ** (-2 * depth / (2 * depth - 1))
    np.testing.assert_allclose(trajectory.excess[-2:], expected[-2:], rtol=0.02)


def test_thousand_dimensions_need_no_square_array(rng):
    """k ≪ n: value, gradient and Hessian product agree with the loss on the span of a few directions."""
    n, k = 20_000, 2
    spectrum = np.concatenate([[3.0, 2.0, 1.0], np.zeros(n - 3)])
    W, V = np.zeros((2, n, k))
    W[:3], V[:3] = rng.standard_normal((2, 3, k))
    large, small = Sinkhorn.from_spectrum(spectrum, None, 0.5), Sinkhorn.from_spectrum(spectrum[:3], None, 0.5)
    assert float(large.excess(W, k)) == pytest.approx(float(small.excess(W[:3], k)), rel=1e-12)
    np.testing.assert_allclose(large.gradient(W)[:3], small.gradient(W[:3]), rtol=1e-10)
    np.testing.assert_allclose(large.hessian_product(W, V)[:3], small.hessian_product(W[:3], V[:3]), rtol=1e-10)


def test_descent_below_the_inverse_curvature_never_raises_the_loss(rng):
    loss = Sinkhorn.from_spectrum(SPECTRUM, None, 0.5)
    W = 3 * rng.standard_normal((50, 5, 5))
    step = 1.99 / HIGHEST_CURVATURE
    assert np.all(loss.value(W - step * loss.gradient(W)) <= loss.value(W))


@pytest.mark.parametrize("blur", [0, -1, np.nan, np.inf])
def test_blur_must_be_positive(blur):
    with pytest.raises(ValueError, match="blur must be a finite number > 0"):
        Sinkhorn(np.eye(2), blur)
