"""The reduced flow against the flow of all layers, closed forms, and theory."""

import signal
from itertools import pairwise

import numpy as np
import pytest
from exact import balanced_gradient_norm
from scipy.integrate import solve_ivp

from deepbures.flow.gradient_flow import gradient_flow
from deepbures.losses.registry import BuresWasserstein, Frobenius
from deepbures.model.network import DeepLinearNetwork
from deepbures.model.starts import close_start, small_start
from deepbures.model.targets import draw_target
from deepbures.model.trajectory import StopReason
from deepbures.rates.measured import tail_slope
from deepbures.rates.predicted import flow_bound, sharp_rate
from deepbures.rates.program_constants import program_constants
from deepbures.study.grid.seeds import generator

SPECTRUM = np.array([3.0, 2.2, 1.3, 0.5])
KINDS = [0, 0.2, "frobenius"]


def make_loss(kind, covariance):
    return Frobenius(covariance) if kind == "frobenius" else BuresWasserstein(covariance, kind)


def orthogonal(rng, n):
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


def covariances(trajectory):
    return trajectory.factors @ np.swapaxes(trajectory.factors, -1, -2)


def relative_error(found, expected):
    axes = (-2, -1)
    return np.max(np.linalg.norm(found - expected, axis=axes) / np.linalg.norm(expected, axis=axes))


def near_minimum(loss, rank, rng, distance=0.3):
    best = loss.eigenvectors * np.sqrt(loss.minimum_spectrum(rank))
    return best[:, :rank] + distance * rng.standard_normal((loss.dimension, rank))


def flow_of_layers(loss, W, depth, width, times):
    """S at the given times, from all layers integrated together: dW_j/dt = −∂L^N/∂W_j."""
    layers = DeepLinearNetwork.balanced(W, depth, width).layers
    cuts = np.cumsum([layer.size for layer in layers])[:-1]

    def network(y):
        return DeepLinearNetwork([p.reshape(W.shape) for p, W in zip(np.split(y, cuts), layers, strict=True)])

    def velocity(_, y):
        now = network(y)
        return -np.concatenate([g.ravel() for g in now.layer_gradients(loss.gradient(now.end_to_end()))])

    start = np.concatenate([layer.ravel() for layer in layers])
    found = solve_ivp(velocity, (0, times[-1]), start, "DOP853", t_eval=times, rtol=1e-11, atol=1e-13)
    W = np.array([network(y).end_to_end() for y in found.y.T])
    return W @ W.mT


# --- The flow itself --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rank", "wide"), [(1, True), (2, False), (3, True), (4, False), (4, True)])
@pytest.mark.parametrize("depth", [1, 2, 3, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_reduced_flow_is_the_flow_of_all_layers(make_target, kind, depth, rank, wide):
    # S of all N layers, to 1e-6 relative. One layer has no inner width: there the bottleneck is d_0 = k.
    rng = np.random.default_rng(100 * depth + 10 * rank + wide)
    loss = make_loss(kind, make_target(SPECTRUM))
    columns = rank if depth == 1 else 6 if wide else 4
    W = rng.standard_normal((4, rank)) / 2 @ orthogonal(rng, columns)[:rank]
    times = np.linspace(0, 1, 5)
    trajectory = gradient_flow(loss, W, depth, times, rank=rank, rtol=1e-8)
    np.testing.assert_array_equal(trajectory.times, times)
    expected = flow_of_layers(loss, W, depth, rank, times)
    assert relative_error(covariances(trajectory), expected) < 1e-6
    # A loss is a square of differences δ: their rounding is eps/δ of it, another one on another BLAS (1.6e-9 was seen).
    rounding = 1e-20 * trajectory.loss[0]
    np.testing.assert_allclose(trajectory.loss, loss.value(trajectory.factors), rtol=1e-8, atol=rounding)
    np.testing.assert_allclose(trajectory.excess, loss.excess(trajectory.factors, rank), rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("depth", [1, 2])
def test_commuting_flow_in_closed_form(make_target, depth):
    # ε = 0, W = Ω diag(σ) Qᵀ, r = √λ. N = 1: σ(t) = r + (σ(0) − r) e^{−2t}. N = 2: σ' = −4 (σ − r) σ, a logistic.
    rng = np.random.default_rng(0)
    loss = BuresWasserstein(make_target(SPECTRUM))
    r, sigma = np.sqrt(SPECTRUM), np.array([2.5, 0.3, 2.0, 0.1])
    times = np.linspace(0, 2, 9)
    trajectory = gradient_flow(loss, loss.eigenvectors * sigma @ orthogonal(rng, 4), depth, times, rtol=1e-10)
    t = times[:, None]
    exact = (r + (sigma - r) * np.exp(-2 * t), r / (1 + (r / sigma - 1) * np.exp(-4 * r * t)))[depth - 1]
    expected = (loss.eigenvectors * exact[:, None, :] ** 2) @ loss.eigenvectors.T
    assert relative_error(covariances(trajectory), expected) < 1e-9


@pytest.mark.parametrize(("method", "limit"), [("auto", 1e-7), ("explicit", 1e-8)])
@pytest.mark.parametrize("depth", [1, 2, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_tighter_tolerance_smaller_error(make_target, rng, kind, depth, method, limit):
    # Tolerances 1e-4, 1e-6, 1e-8 for a step: each error of S, also between the steps, below a third of the one before.
    loss = make_loss(kind, make_target(SPECTRUM))
    W, times = rng.standard_normal((4, 4)) / 2, np.linspace(0.1, 1, 7)
    exact = covariances(gradient_flow(loss, W, depth, times, rtol=1e-11, method="explicit"))
    errors = [
        relative_error(covariances(gradient_flow(loss, W, depth, times, rtol=rtol, method=method)), exact)
        for rtol in (1e-4, 1e-6, 1e-8)
    ]
    assert all(fine < coarse / 3 for coarse, fine in pairwise(errors))
    assert errors[-1] < limit


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_flow_turns_with_the_data(make_target, rng, kind, depth):
    # Start U W Q on the target U Σ0 Uᵀ: S(t) turns with U and does not depend on Q.
    covariance, W = make_target(SPECTRUM), rng.standard_normal((4, 4))
    U, Q, times = orthogonal(rng, 4), orthogonal(rng, 4), np.linspace(0, 0.5, 4)
    S = covariances(gradient_flow(make_loss(kind, covariance), W, depth, times, rtol=1e-9))
    turned = covariances(gradient_flow(make_loss(kind, U @ covariance @ U.T), U @ W @ Q, depth, times, rtol=1e-9))
    assert relative_error(turned, U @ S @ U.T) < 1e-8


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_flow_scales_with_the_data(make_target, rng, kind, depth):
    # W → a W, Σ0 → a² Σ0, ε → a² ε: S(t) → a² S(a^p t), with p = 2 − 2/N (BW) and 4 − 2/N (Frobenius).
    a, covariance, W = 1.7, make_target(SPECTRUM), rng.standard_normal((4, 4)) / 1.5
    times, power = np.linspace(0, 0.5, 4), (4 if kind == "frobenius" else 2) - 2 / depth
    larger = make_loss(kind if kind == "frobenius" else a**2 * kind, a**2 * covariance)
    S = covariances(gradient_flow(make_loss(kind, covariance), W, depth, a**power * times, rtol=1e-9))
    scaled = covariances(gradient_flow(larger, a * W, depth, times, rtol=1e-9))
    assert relative_error(scaled, a**2 * S) < 1e-7


# --- Energy -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [2, 4])
@pytest.mark.parametrize("depth", [1, 2, 10])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_never_increases(make_target, rng, kind, depth, rank):
    # 300 samples over the run to L − L* = 1e-16: the loss to rounding, the excess loss strictly.
    loss = make_loss(kind, make_target(SPECTRUM))
    W = near_minimum(loss, rank, rng, 0.6)
    trajectory = gradient_flow(loss, W, depth, max_time=200.0, excess_tolerance=1e-16, samples=300)
    assert trajectory.stop_reason == StopReason.CONVERGED
    assert np.diff(trajectory.loss).max() <= 1e-14 * trajectory.loss[0]
    assert (np.diff(trajectory.excess) < 0).all()
    assert trajectory.excess[-1] <= 1e-16


@pytest.mark.parametrize("rank", [1, 3, 4])
@pytest.mark.parametrize("depth", [1, 2, 3, 10])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_falls_by_the_squared_gradient(make_target, rng, kind, depth, rank):
    # dL/dt = −Σ_j ‖∂L/∂W_j‖², by central differences of fourth order along the flow, to 1e-6.
    loss = make_loss(kind, make_target(SPECTRUM))
    W = near_minimum(loss, rank, rng)
    h = 2e-4 / depth
    times = 0.05 / depth + h * np.arange(5)
    trajectory = gradient_flow(loss, W, depth, times, rank=rank, rtol=1e-11)
    slope = trajectory.excess @ np.array([1, -8, 0, 8, -1]) / (12 * h)
    assert -slope == pytest.approx(balanced_gradient_norm(loss, trajectory.factors[2], depth) ** 2, rel=1e-6)


# --- Theory -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
@pytest.mark.parametrize("depth", [1, 2, 3, 10])
@pytest.mark.parametrize("epsilon", [0, 0.2])
def test_tail_decays_at_the_sharp_rate(make_target, rng, epsilon, depth, rank):
    # Over the last two decades before L − L* = 1e-14 the slope is −sharp_rate / ln 10, to 1 %.
    loss = BuresWasserstein(make_target(SPECTRUM), epsilon)
    rate = sharp_rate(SPECTRUM, epsilon, depth, rank)
    W = near_minimum(loss, rank, rng)
    trajectory = gradient_flow(loss, W, depth, rank=rank, max_time=100 / rate, excess_tolerance=1e-14, samples=300)
    assert trajectory.stop_reason == StopReason.CONVERGED
    fit = tail_slope(trajectory.times, trajectory.excess, decades=2)
    assert -fit.slope * np.log(10) == pytest.approx(rate, rel=0.01)
    assert fit.r_squared > 0.9999


def test_tail_is_smooth_down_to_the_stopping_tolerance(make_target, rng):
    # Samples between the integrator's steps lie on the exponential, to 1e-3, from 1e-12 to 1e-16.
    loss = BuresWasserstein(make_target(SPECTRUM))
    W = near_minimum(loss, 4, rng)
    trajectory = gradient_flow(loss, W, 3, max_time=100.0, excess_tolerance=1e-16, samples=2000)
    tail = trajectory.excess < 1e-12
    straight = np.log(trajectory.excess[tail]) + sharp_rate(SPECTRUM, 0, 3) * trajectory.times[tail]
    assert np.ptp(straight) < 1e-3
    assert tail.sum() > 100


@pytest.mark.parametrize("rtol", [1e-6, 1e-9, 1e-12])
@pytest.mark.parametrize("rank", [2, 4])
@pytest.mark.parametrize("epsilon", [0, 0.2])
def test_tight_tolerances_reach_the_minimum(make_target, rng, epsilon, rank, rtol):
    # Whatever rtol, the floor of 100 eps |Z| keeps rounding errors from stopping the flow short of 1e-14.
    loss = BuresWasserstein(make_target(SPECTRUM), epsilon)
    W = near_minimum(loss, rank, rng)
    trajectory = gradient_flow(loss, W, 3, max_time=100.0, excess_tolerance=1e-14, rtol=rtol, max_steps=1000)
    assert trajectory.stop_reason == StopReason.CONVERGED


@pytest.mark.parametrize("depth", [1, 10, 50])
@pytest.mark.parametrize(("smin", "epsilon"), [(0.5, 0.1), (1, 0), (1, 0.1), (5, 1)])
def test_paper_bound_is_never_violated(smin, epsilon, depth):
    # L(t) − L* ≤ (L(0) − L*) exp(−8 N c^{2(2N−1)/N} K t) on grid points of the authors, two targets each.
    for seed in range(2):
        loss = BuresWasserstein(draw_target(generator(1, "target", seed), 20, smin), epsilon)
        start = close_start(generator(1, "initialization", seed), loss, 20)
        trajectory = gradient_flow(loss, start.end_to_end, depth, max_time=100.0, excess_tolerance=1e-12)
        constants = program_constants(loss.eigenvalues, epsilon, depth, float(loss.value(start.end_to_end)))
        assert constants.margin > 0
        bound = flow_bound(trajectory.times, trajectory.excess[0], constants.bound_rate)
        assert (trajectory.excess <= bound * (1 + 1e-12)).all()
        # And it is far from sharp: by orders of magnitude.
        assert constants.bound_rate < 1e-3 * sharp_rate(loss.eigenvalues, epsilon, depth)


@pytest.mark.parametrize("depth", [1, 2, 3, 10])
@pytest.mark.parametrize("epsilon", [0, 0.2])
def test_flow_escapes_a_saddle_at_its_local_rate(make_target, epsilon, depth):
    # Next to the saddle J = {2} the flow moves away like e^{|r| t}, r < 0 the rate of the pair (2, 1).
    loss = BuresWasserstein(np.diag(SPECTRUM), epsilon)
    s = SPECTRUM[1] - epsilon
    rate = 2 * s ** (1 - 1 / depth) * (SPECTRUM[0] - SPECTRUM[1]) / (SPECTRUM[1] + np.sqrt(epsilon * SPECTRUM[0]))
    W = np.sqrt(s) * np.array([[1e-4], [1.0], [0], [0]])
    times = np.linspace(0, 2 / rate, 5)
    trajectory = gradient_flow(loss, W, depth, times, rtol=1e-9)
    np.testing.assert_allclose(np.abs(trajectory.factors[:, 0, 0]), np.sqrt(s) * 1e-4 * np.exp(rate * times), rtol=1e-5)


def test_small_start_descends_the_energy_levels(make_target):
    # From W ≈ 0 at depth 3 the loss rests near Σ_{j>i} λ_j for i = 0, 1, 2 before it ends at L*.
    loss = BuresWasserstein(make_target([9.0, 3.0, 1.0, 0.2]), 0.01)
    start = small_start(np.random.default_rng(1), 4, 2, 1e-2)
    trajectory = gradient_flow(loss, start.end_to_end, 3, rank=2, max_time=1e4, excess_tolerance=1e-12, samples=400)
    levels = loss.saddle_values(2)
    assert trajectory.loss[0] == pytest.approx(levels[0], rel=1e-2)
    assert trajectory.loss[-1] == pytest.approx(levels[-1], rel=1e-11)
    # A plateau: in log t, where it is slowest between start and end, it passes the level between them.
    t = np.geomspace(1e-3, 1, 400) * trajectory.times[-1]
    loss_at = gradient_flow(loss, start.end_to_end, 3, t, rank=2).loss
    inside = (loss_at < 0.9 * levels[0]) & (loss_at > 1.1 * levels[2])
    slowest = np.argmin(np.where(inside, -np.gradient(loss_at, np.log(t)), np.inf))
    assert loss_at[slowest] == pytest.approx(levels[1], rel=0.05)


# --- How it ends ------------------------------------------------------------------------------------------------


def run(W, loss=None, **options):
    return gradient_flow(loss or BuresWasserstein(np.diag(SPECTRUM)), W, 2, **options)


def test_stops_when_converged():
    trajectory = run(np.eye(4), max_time=100.0, excess_tolerance=1e-10)
    assert trajectory.stop_reason == StopReason.CONVERGED
    assert 0 < trajectory.excess[-1] <= 1e-10 < trajectory.excess[0]
    assert 0 < trajectory.times[-1] < 100
    at_once = run(np.diag(np.sqrt(SPECTRUM)), max_time=1.0, excess_tolerance=1e-10)
    assert (at_once.stop_reason, at_once.n_steps, at_once.times.tolist()) == (StopReason.CONVERGED, 0, [0])


def test_stops_at_the_end_time():
    trajectory = run(np.eye(4), max_time=0.5, samples=17)
    assert trajectory.stop_reason == StopReason.END_TIME
    assert (trajectory.times[0], trajectory.times[-1]) == (0, 0.5)
    assert len(trajectory.times) == 17
    assert (np.diff(trajectory.times) > 0).all()
    assert trajectory.evaluations >= trajectory.n_steps > 0


def test_stops_on_the_step_budget():
    trajectory = run(np.eye(4), max_time=100.0, max_steps=5)
    assert (trajectory.stop_reason, trajectory.n_steps) == (StopReason.STEP_BUDGET, 5)
    assert 0 < trajectory.times[-1] < 100


def test_stationary_start():
    # W_J with J = {1, 3} and representable roots: ∇L(W_J) = 0 exactly, a saddle.
    loss = BuresWasserstein(np.diag([4.0, 1.0, 0.25]))
    trajectory = gradient_flow(loss, np.diag([2.0, 0, 0.5]), 1, max_time=100.0)
    assert (trajectory.stop_reason, trajectory.n_steps, trajectory.times.tolist()) == (StopReason.STATIONARY, 0, [0])
    np.testing.assert_allclose(trajectory.loss, 1, rtol=1e-14)


@pytest.mark.parametrize("kept", [(0,), (1, 3), (0, 1, 2, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_flow_stays_at_a_critical_point(kind, kept):
    # ∇L(W_J) = 0 to rounding: S moves by rounding errors only.
    shift = 0 if kind == "frobenius" else kind
    W = np.zeros((4, len(kept)))
    W[list(kept), range(len(kept))] = np.sqrt(SPECTRUM[list(kept)] - shift)
    loss = make_loss(kind, np.diag(SPECTRUM))
    trajectory = run(W, loss, max_time=1.0)  # at the minimum L − L* may be 0 itself
    assert trajectory.stop_reason in (StopReason.STATIONARY, StopReason.END_TIME, StopReason.CONVERGED)
    np.testing.assert_allclose(covariances(trajectory), np.tile(W @ W.T, (len(trajectory.times), 1, 1)), atol=1e-12)


def test_flow_without_a_tolerance_ends_at_the_minimum(make_target, rng):
    # excess_tolerance = 0: it runs on in the rounding errors, below 1e-20, and never leaves.
    trajectory = run(rng.standard_normal((4, 4)), BuresWasserstein(make_target(SPECTRUM), 0.2), max_time=60.0)
    assert trajectory.stop_reason != StopReason.STEP_UNDERFLOW
    assert trajectory.excess[-1] < 1e-20


@pytest.mark.parametrize("method", ["auto", "explicit"])
@pytest.mark.parametrize(
    "loss",
    [BuresWasserstein(np.diag(SPECTRUM)), BuresWasserstein(np.diag(SPECTRUM), 0.1), Frobenius(np.diag(SPECTRUM))],
)
def test_a_start_without_a_gradient_ends_at_once_whatever_the_horizon(method, loss):
    flow = gradient_flow(loss, np.zeros((4, 2)), 3, max_time=np.inf, method=method)
    assert (flow.stop_reason, flow.n_steps) == (StopReason.STATIONARY, 0)


def test_step_underflow():
    # A gradient that is NaN below a loss of 1: no step is small enough to get there.
    loss = Frobenius(np.diag(SPECTRUM))
    form = loss.form(4)
    gradient = form.gradient
    form.gradient = lambda F: np.where(form.value(F)[..., None, None] > 1, gradient(F), np.nan)
    loss.form = lambda columns, rank=None: form
    trajectory = run(np.eye(4), loss, max_time=10.0, method="explicit")
    assert trajectory.stop_reason == StopReason.STEP_UNDERFLOW
    assert 0 < trajectory.times[-1] < 10
    assert np.isfinite(trajectory.factors).all()
    assert 1 < trajectory.loss[-1] < 1.1


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_zero_start_stays_at_zero(make_target, kind, depth):
    # W = 0 is a critical point: stationary, with the loss of S = 0.
    loss = make_loss(kind, make_target(SPECTRUM))
    trajectory = gradient_flow(loss, np.zeros((4, 4)), depth, max_time=1.0)
    assert trajectory.stop_reason == StopReason.STATIONARY
    assert trajectory.times.tolist() == [0]
    np.testing.assert_array_equal(trajectory.final, 0)
    expected = loss.value(np.zeros((4, 4)))
    assert trajectory.loss == pytest.approx(expected, rel=1e-12)
    # L* refers to the numerical rank of W(0), at least 1.
    assert trajectory.excess == pytest.approx(expected - loss.minimum_value(1), rel=1e-12)


def test_samples_at_the_given_times():
    times = [0.1, 0.25, 3.0]
    trajectory = run(np.eye(4), times=times)
    assert trajectory.times.tolist() == times
    assert trajectory.stop_reason == StopReason.END_TIME
    # The same states as with other times around them: sampling does not steer the integrator.
    finer = run(np.eye(4), times=np.union1d(times, np.linspace(0, 3, 31)))
    at = np.searchsorted(finer.times, times)
    np.testing.assert_array_equal(finer.factors[at], trajectory.factors)


def test_samples_end_where_the_flow_stopped():
    trajectory = run(np.eye(4), times=np.linspace(0, 50, 101), excess_tolerance=1e-6)
    assert trajectory.stop_reason == StopReason.CONVERGED
    assert trajectory.times[-1] < 50
    np.testing.assert_array_equal(trajectory.times[:-1], np.arange(len(trajectory.times) - 1) / 2)
    assert trajectory.excess[-1] <= 1e-6 < trajectory.excess[0]


def test_only_time_zero_asked_for():
    trajectory = run(np.eye(4), times=[0.0])
    assert trajectory.times.tolist() == [0]
    np.testing.assert_allclose(trajectory.final, np.eye(4), atol=1e-15)
    assert trajectory.stop_reason == StopReason.END_TIME  # not stationary: the gradient is not zero


# --- Hard cases -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [2, 4])
@pytest.mark.parametrize("depth", [1, 2, 6])
@pytest.mark.parametrize("kind", [0, 0.1, "frobenius"])
def test_singular_target(make_target, rng, kind, depth, rank):
    # Σ0 of rank 2: exponential for k = 2 and ε = 0; slower where S must become singular, but always down, no NaN.
    loss = make_loss(kind, make_target([3.0, 1.0, 0.0, 0.0]))
    W = near_minimum(loss, rank, rng)
    trajectory = gradient_flow(loss, W, depth, max_time=30.0, excess_tolerance=1e-12, rank=rank)
    assert np.isfinite(trajectory.factors).all()
    assert (np.diff(trajectory.excess) < 0).all()
    assert trajectory.excess[-1] < 1e-2 * trajectory.excess[0]
    if rank == 2:
        assert trajectory.stop_reason == StopReason.CONVERGED


@pytest.mark.parametrize("depth", [2, 10])
def test_smoothing_at_the_smallest_eigenvalue(make_target, rng, depth):
    # ε = λ_n: the optimum is singular and the decay slower than exponential (rate 0), but it goes on.
    loss = BuresWasserstein(make_target(SPECTRUM), 0.5)
    assert sharp_rate(SPECTRUM, 0.5, depth) == 0
    trajectory = gradient_flow(loss, near_minimum(loss, 4, rng), depth, np.array([0, 1, 10, 100.0]))
    assert (np.diff(trajectory.excess) < 0).all()
    assert trajectory.stop_reason == StopReason.END_TIME
    assert 1e-10 < trajectory.excess[-1] < 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_depth_one_thousand(make_target, rng, kind):
    # Rate 4 N λ_n^{1−1/N} at ε = 0: still one decomposition a step.
    loss = make_loss(kind, make_target(SPECTRUM))
    W = near_minimum(loss, 4, rng, 0.1)
    trajectory = gradient_flow(loss, W, 1000, max_time=10.0, excess_tolerance=1e-14, samples=300)
    assert trajectory.stop_reason == StopReason.CONVERGED
    assert (np.diff(trajectory.excess) < 0).all()
    if kind != "frobenius":
        fit = tail_slope(trajectory.times, trajectory.excess, 2)
        assert -fit.slope * np.log(10) == pytest.approx(sharp_rate(SPECTRUM, kind, 1000), rel=0.01)


def test_many_dimensions_and_low_rank():
    # n = 60, k = 3: the cost is that of a 60 × 3 decomposition a step.
    rng = np.random.default_rng(0)
    loss = BuresWasserstein(draw_target(rng, 60, 0.5))
    start = small_start(rng, 60, 3, 0.1)
    trajectory = gradient_flow(loss, start.end_to_end, 4, max_time=200.0, excess_tolerance=1e-8)
    assert trajectory.stop_reason == StopReason.CONVERGED
    assert trajectory.factors.shape[1:] == (60, 3)
    optimum, _ = loss.minimum(3)
    np.testing.assert_allclose(trajectory.final, optimum, atol=1e-3)


@pytest.mark.parametrize("depth", [2, 30])
def test_stages_that_overshoot_shrink_the_step(make_target, rng, depth):
    # A Frobenius start far above the target: G^{N−1} overflows in trial stages; the flow goes on, and down.
    loss = Frobenius(make_target(SPECTRUM))
    trajectory = gradient_flow(loss, 30 * rng.standard_normal((4, 4)), depth, max_time=1e-2, max_steps=2000)
    assert np.isfinite(trajectory.factors).all()
    assert (np.diff(trajectory.loss) < 0).all()
    assert trajectory.loss[-1] < 1e-3 * trajectory.loss[0]


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs an alarm clock")
@pytest.mark.parametrize("size", [1e60, 1e110, 1e200])
def test_start_beyond_the_range_of_floats_is_refused(size):
    # Its gradient overflows: a message about `initial`, neither a hang nor scipy's complaint about a first step.
    def ring(*_):
        raise TimeoutError("the flow hangs")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 1)
    try:
        with pytest.raises(ValueError, match="initial"):
            run(size * np.eye(4), Frobenius(np.diag(SPECTRUM)), max_time=1.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# --- Bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("W", "options", "message"),
    [
        (np.eye(3), {}, r"initial must be a matrix with 4 rows, not of shape \(3, 3\)"),
        (np.ones((2, 4, 4)), {}, r"initial must be a matrix with 4 rows, not of shape \(2, 4, 4\)"),
        (np.full((4, 4), np.nan), {}, "initial must be finite"),
        (np.eye(4), {"rank": 3}, r"rank must lie between the rank of initial, 4, and min\(n, d_0\) = 4, not 3"),
        (np.eye(4), {"rank": 5}, r"rank must lie between .* not 5"),
        (np.eye(4), {"rtol": 0}, "rtol must be between 0 and 1 and atol not negative, not 0 and 0.0"),
        (np.eye(4), {"rtol": np.nan}, "rtol must be between 0 and 1"),
        (np.eye(4), {"atol": -1}, "atol not negative"),
        (np.eye(4), {"atol": np.nan}, "atol"),
        (np.eye(4), {"max_time": None}, "max_time must be positive where no times are given, not None"),
        (np.eye(4), {"max_time": 0}, "max_time must be positive .* not 0"),
        (np.eye(4), {"max_time": np.nan}, "max_time must be positive .* not nan"),
        (np.eye(4), {"max_steps": 0}, "max_steps"),
        (np.eye(4), {"samples": 0}, "samples"),
        (np.eye(4), {"times": [0, 1, 1]}, "times must be increasing and not negative"),
        (np.eye(4), {"times": [-1, 1]}, "times must be increasing and not negative"),
        (np.eye(4), {"times": [0, np.nan]}, "times must be finite"),
        (np.eye(4), {"times": []}, "times must be a non-empty array"),
    ],
)
def test_bad_input_is_refused(W, options, message):
    with pytest.raises(ValueError, match=message):
        run(W, **{"max_time": 1.0, **options})


@pytest.mark.parametrize("depth", [0, 1.5])
def test_depth_must_be_a_positive_integer(depth):
    with pytest.raises(ValueError, match="depth must be an integer ≥ 1"):
        gradient_flow(Frobenius(np.eye(2)), np.eye(2), depth, max_time=1.0)


@pytest.mark.parametrize("rank", [5, 2])
@pytest.mark.parametrize("depth", [1, 2, 10])
def test_flows_do_not_depend_on_the_unit_where_squares_of_velocities_underflow(rng, depth, rank):
    # Σ0 ∝ u = 1e-100 and the square loss: ‖Ż‖² is of the order of u^{4 − …} < 1e-308. Times scale as u^{1/N − 2}.
    eigenvalues, start = np.array([1, 0.5, 0.3, 0.1, 0.05]), 0.3 * rng.standard_normal((5, rank))
    ends = []
    for unit in (1.0, 1e-100):
        loss = Frobenius.from_spectrum(unit * eigenvalues)
        flow = gradient_flow(
            loss, np.sqrt(unit) * start, depth, max_time=np.inf, rtol=1e-7, excess_tolerance=1e-8 * unit**2
        )
        assert flow.stop_reason == StopReason.CONVERGED
        ends.append(float(np.log(flow.times[-1])) + (2 - 1 / depth) * np.log(unit))
    assert ends[0] == pytest.approx(ends[1], rel=2e-2)
