"""Gradient descent: single steps, closed forms, local stability, the flow, stacks of runs, records, how runs end."""

import warnings
from functools import reduce
from itertools import pairwise

import mpmath as mp
import numpy as np
import pytest

from deepbures.descent.gradient_descent import CHECK_INTERVAL, gradient_descent
from deepbures.flow.gradient_flow import gradient_flow
from deepbures.losses.registry import BuresWasserstein, Frobenius
from deepbures.model.network import DeepLinearNetwork
from deepbures.model.trajectory import StopReason
from deepbures.rates.predicted import local_rates, rates_at_minimum, stable_step

SPECTRUM = np.array([3.0, 2.2, 1.3, 0.5])
KINDS = [0, 0.2, "frobenius"]
#: d_0, …, d_N with n = 4: d_0 = n, d_0 > n, d_0 < n, bottlenecks below n, hidden layers above it.
WIDTHS = [(4, 4), (6, 4), (3, 4), (4, 4, 4), (5, 3, 4), (3, 6, 4), (5, 2, 6, 4), (3, 5, 4, 4)]
COLUMNS = ("loss", "excess", "factors", "gradient_norm", "balancedness")


def make_loss(kind, covariance):
    """`kind` is "frobenius", or ε of the Bures-Wasserstein loss."""
    return Frobenius(covariance) if isinstance(kind, str) else BuresWasserstein(covariance, kind)


def step_size(kind):
    """A step size well below 2/λ_max: the Frobenius loss is about 2 λ_1 times as steep."""
    return 0.003 if kind == "frobenius" else 0.02


def random_layers(rng, widths, batch=()):
    """W_1, …, W_N of the widths d_0, …, d_N, with singular values of order 1."""
    return [rng.standard_normal((*batch, above, below)) / np.sqrt(below) for below, above in pairwise(widths)]


def product(layers):
    return reduce(lambda W, layer: layer @ W, layers)


def layer_gradients(loss, layers):
    network = DeepLinearNetwork(layers)
    return network.layer_gradients(loss.gradient(network.end_to_end()))


def near_minimum(loss, rank, distance, rng):
    """Factor (n, k) of the minimiser over rank ≤ k, moved by `distance`."""
    best = (loss.eigenvectors * np.sqrt(loss.minimum_spectrum(rank)))[:, :rank]
    direction = rng.standard_normal(best.shape)
    return best + distance * direction / np.linalg.norm(direction)


def slope_in_step_size(step_sizes, errors):
    return np.polyfit(np.log(step_sizes), np.log(errors), 1)[0]


def assert_member_is(stack, i, single):
    """Run i of a stack is that single run bit for bit; rows that only others have are NaN."""
    assert stack.stop_reason[i] == single.stop_reason
    assert stack.last_step[i] == single.last_step
    for stacked, alone in zip(stack.layers, single.layers, strict=True):
        np.testing.assert_array_equal(stacked[i], alone)
    recorded = np.isin(stack.steps, single.steps)
    for name in COLUMNS:
        column = getattr(stack, name)[(slice(None), *i)]
        np.testing.assert_array_equal(column[recorded], getattr(single, name))
        assert np.isnan(column[~recorded]).all()


# --- Single steps -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_follows_the_numerical_gradient(make_target, rng, kind, widths):
    # W_j ← W_j − η ∂L/∂W_j, each entry by differences of fourth order: (8 (f(h) − f(−h)) − (f(2h) − f(−2h))) / 12 h.
    loss, layers, eta, h = make_loss(kind, make_target(SPECTRUM)), random_layers(rng, widths), 0.05, 1e-3
    after = gradient_descent(loss, layers, eta, 1).layers
    for j, (W, moved) in enumerate(zip(layers, after, strict=True)):
        entries = np.eye(W.size).reshape(-1, *W.shape)

        def f(step, j=j, W=W, entries=entries):
            return loss.value(product([*layers[:j], W + step * entries, *layers[j + 1 :]]))

        gradient = ((8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)).reshape(W.shape)
        np.testing.assert_allclose((W - moved) / eta, gradient, rtol=0, atol=1e-8 * np.abs(gradient).max())


def test_all_layers_move_from_the_same_weights():
    # n = 1, N = 2: a' = a − η g b and b' = b − η g a with g = 2 (a b − √λ); not b − η g(a') a' as when taken in turn.
    a, b, eta = 0.7, 1.9, 0.1
    loss = BuresWasserstein([[4.0]])
    found_a, found_b = gradient_descent(loss, [[[a]], [[b]]], eta, 1).layers
    g = 2 * (a * b - 2)
    in_turn = b - eta * 2 * ((a - eta * g * b) * b - 2) * (a - eta * g * b)
    assert found_a.item() == pytest.approx(a - eta * g * b, rel=1e-15)
    assert found_b.item() == pytest.approx(b - eta * g * a, rel=1e-15)
    assert abs(found_b.item() - in_turn) > 0.05


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_changes_the_balance_by_its_square_only(make_target, rng, kind, widths):
    # Δ(W_{j+1}ᵀ W_{j+1} − W_j W_jᵀ) = η² (∇_{j+1}ᵀ ∇_{j+1} − ∇_j ∇_jᵀ): the terms in η cancel, balanced or not.
    loss, layers, eta = make_loss(kind, make_target(SPECTRUM)), random_layers(rng, widths), 0.3
    after, gradients = gradient_descent(loss, layers, eta, 1).layers, layer_gradients(loss, layers)
    for j in range(len(layers) - 1):
        before, now, change = (x[j + 1].T @ x[j + 1] - x[j] @ x[j].T for x in (layers, after, gradients))
        np.testing.assert_allclose(now - before, eta**2 * change, rtol=0, atol=1e-13 * np.abs(now).max())


# --- Closed forms -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [0.01, 0.3, 0.5, 0.9])
def test_scalar_closed_form(eta):
    # n = N = 1, ε = 0: w_t − √λ = (1 − 2η)^t (w_0 − √λ).
    run = gradient_descent(BuresWasserstein([[2.0]]), [[[3.0]]], eta, 60, np.arange(61))
    expected = np.sqrt(2) + (1 - 2 * eta) ** np.arange(61.0) * (3 - np.sqrt(2))
    np.testing.assert_allclose(np.abs(run.factors[:, 0, 0]), expected, rtol=1e-14)
    np.testing.assert_allclose(np.sqrt(run.excess), np.abs(expected - np.sqrt(2)), rtol=0, atol=1e-14)


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_directions_of_a_commuting_start_descend_alone(make_target, rng, kind, depth):
    # Layers diag(a) with the eigenvectors on top: a ← a − η a^{N−1} ℓ'(a^N) for each λ, in 40 digits; ℓ'(w) is
    # 2 (1 − √(λ/(w² + ε))) w, or 4 (w² − λ) w.
    loss, eta = make_loss(kind, make_target(SPECTRUM)), step_size(kind)
    start = rng.uniform(0.5, 1.2, 4)
    layers = [*[np.diag(start)] * (depth - 1), loss.eigenvectors * start]
    with mp.workdps(40):

        def descend(a, eigenvalue):
            for _ in range(30):
                w = a**depth
                slope = w**2 - eigenvalue if kind == "frobenius" else 1 - mp.sqrt(eigenvalue / (w**2 + mp.mpf(kind)))
                a -= eta * a ** (depth - 1) * (4 if kind == "frobenius" else 2) * slope * w
            return float(a)

        expected = np.array([descend(*map(mp.mpf, pair)) for pair in zip(start, loss.eigenvalues, strict=True)])
    run = gradient_descent(loss, layers, eta, 30)
    for layer in run.layers[:-1]:
        np.testing.assert_allclose(layer, np.diag(expected), rtol=0, atol=1e-13)
    np.testing.assert_allclose(run.layers[-1], loss.eigenvectors * expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("widths", [(4, 4), (6, 3, 4), (5, 2, 6, 4)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_descent_turns_with_its_data(make_target, rng, kind, widths):
    # Σ0 → U Σ0 Uᵀ, W_N → U W_N and W_1 → W_1 Q turn the whole run: the same curves, and layers turned alike.
    covariance, layers = make_target(SPECTRUM), random_layers(rng, widths)
    U, Q = (np.linalg.qr(rng.standard_normal((size, size)))[0] for size in (4, widths[0]))
    turned = [W.copy() for W in layers]
    turned[0] = turned[0] @ Q
    turned[-1] = U @ turned[-1]
    run = gradient_descent(make_loss(kind, covariance), layers, step_size(kind), 50)
    other = gradient_descent(make_loss(kind, U @ covariance @ U.T), turned, step_size(kind), 50)
    for name in ("loss", "gradient_norm", "balancedness"):
        np.testing.assert_allclose(getattr(other, name), getattr(run, name), rtol=1e-10, atol=1e-12)
    expected = [W.copy() for W in run.layers]
    expected[0] = expected[0] @ Q
    expected[-1] = U @ expected[-1]
    for found, layer in zip(other.layers, expected, strict=True):
        np.testing.assert_allclose(found, layer, rtol=0, atol=1e-11)


# --- Local stability --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [4, 2])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("epsilon", [0, 0.1])
@pytest.mark.parametrize("share", [0.4, 0.97, 1.03])
def test_excess_contracts_by_the_slowest_local_rate(make_target, rng, share, epsilon, depth, rank):
    # Near the balanced minimum L − L* shrinks by max_r (1 − η r)² a step: it converges below η = 2 / max r, and leaves
    # above.
    eigenvalues = np.array([6.0, 3.0, 1.5, 0.4])  # rates well apart
    loss = BuresWasserstein(make_target(eigenvalues), epsilon)
    rates = np.concatenate(local_rates(eigenvalues, epsilon, depth, rank))
    eta = share * 2 / rates.max()
    start = near_minimum(loss, rank, 1e-2 if share < 1 else 1e-8, rng)
    network = DeepLinearNetwork.balanced(start, depth, rank)
    tolerance = 1e-20 if share < 1 else 0
    excess = gradient_descent(loss, network, eta, 200, np.arange(0, 201, 5), excess_tolerance=tolerance).excess
    contraction = (excess[-1] / excess[-2]) ** (1 / 5)
    assert contraction == pytest.approx(np.max((1 - eta * rates) ** 2), rel=1e-3)
    assert excess[-1] < 1e-7 * excess[0] if share < 1 else excess[-1] > 1e3 * excess[0]


# --- Flow -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [4, 2])
@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_descent_approaches_the_flow_with_order_one(make_target, rng, kind, depth, rank):
    # ‖S_η(T) − S(T)‖ = O(η) from a balanced start.
    loss, time = make_loss(kind, make_target(SPECTRUM)), 0.2 / depth
    start = near_minimum(loss, rank, 1.0, rng)
    flow = gradient_flow(loss, start, depth, [time], rtol=1e-11).final
    n_steps = np.array([80, 160, 320])
    network = DeepLinearNetwork.balanced(start, depth, rank)
    runs = [gradient_descent(loss, network, time / n, n, [n]) for n in n_steps]
    errors = [np.linalg.norm(run.final - flow) for run in runs]
    assert slope_in_step_size(time / n_steps, errors) == pytest.approx(1, abs=0.05)
    assert errors[-1] < 0.01 * np.linalg.norm(flow)


@pytest.mark.parametrize("kind", KINDS)
def test_imbalance_of_a_balanced_start_is_of_order_one(make_target, rng, kind):
    # T/η steps that each add O(η²): max_j ‖W_{j+1}ᵀ W_{j+1} − W_j W_jᵀ‖ at a fixed T is O(η), N = 3.
    loss, time, n_steps = make_loss(kind, make_target(SPECTRUM)), 0.2, np.array([80, 160, 320])
    network = DeepLinearNetwork.balanced(near_minimum(loss, 4, 1.0, rng), 3)
    drift = [gradient_descent(loss, network, time / n, n, [n]).balancedness.item() for n in n_steps]
    assert slope_in_step_size(time / n_steps, drift) == pytest.approx(1, abs=0.05)


def test_flow_refuses_a_stack_of_targets():
    loss = BuresWasserstein(np.stack([np.eye(2)] * 3))
    with pytest.raises(ValueError, match=r"^loss must have one target, not a stack of shape \(3,\)$"):
        gradient_flow(loss, np.eye(2), 2, max_time=1.0)


# --- Rank -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_rank_stays_below_the_bottleneck(make_target, rng, kind):
    # rank W ≤ k = min_j d_j, factors have k columns, and L − L* refers to the minimum over rank ≤ k: it goes to 0.
    loss = make_loss(kind, make_target(SPECTRUM))
    run = gradient_descent(loss, random_layers(rng, (5, 2, 6, 4)), 3 * step_size(kind), 1000)
    assert run.factors.shape == (101, 4, 2)
    singular_values = np.linalg.svd(product(run.layers), compute_uv=False)
    assert (singular_values[2:] < 1e-14 * singular_values[0]).all()
    assert 0 <= run.excess[-1] < 1e-9 * run.excess[0]
    np.testing.assert_allclose(run.final, loss.minimum(2)[0], atol=1e-4)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_unsmoothed_descent_keeps_a_rank_below_the_bottleneck(make_target, depth):
    # ε = 0, columns 2..4 of W zero: T W has those of W, so that W stays of rank 1 and ends on that level, Σ_{j>1} λ_j.
    loss = BuresWasserstein(make_target(SPECTRUM))
    layers = [np.diag([1.0, 0, 0, 0])] * (depth - 1) + [np.ones((4, 1)) * [1.0, 0, 0, 0]]
    run = gradient_descent(loss, layers, 0.05, 400)
    assert all(np.isfinite(getattr(run, name)).all() for name in COLUMNS)
    np.testing.assert_array_equal(product(run.layers)[:, 1:], 0)
    assert run.loss[-1] == pytest.approx(SPECTRUM[1:].sum(), rel=1e-8)


# --- Stacks of runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [(6, 4), (3, 4, 4), (5, 2, 6, 4)], ids=str)
@pytest.mark.parametrize("batch", [(3,), (2, 3)], ids=str)
@pytest.mark.parametrize("targets", ["one", "stack"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_is_its_single_runs_bit_for_bit(make_target, rng, kind, targets, batch, widths):
    # Runs that differ in layers, step size, and with a stack of targets in Σ0 and ε.
    layers, size = random_layers(rng, widths, batch), np.prod(batch)
    eta = step_size(kind) * np.linspace(0.5, 1.5, size).reshape(batch)
    shape = batch if targets == "stack" else ()
    covariances = np.stack([make_target(SPECTRUM + seed / 9, seed) for seed in range(size)]).reshape(*batch, 4, 4)
    covariances = covariances if shape else covariances[(0,) * len(batch)]
    kinds = np.full(shape, kind, dtype=object)
    if kind == 0.2:
        kinds[...] = 0.2 * (1 + np.arange(kinds.size).reshape(shape))
    loss = make_loss("frobenius" if kind == "frobenius" else kinds.astype(float), covariances)
    stack = gradient_descent(loss, layers, eta, 40, [0, 1, 17, 40])
    assert stack.times.shape == (4, *batch)
    assert stack.factors.shape == (4, *batch, 4, min(widths))
    assert stack.stop_reason.shape == stack.last_step.shape == batch
    for i in np.ndindex(batch):
        target = i if shape else ()
        single = make_loss(kinds[target], covariances[target])
        run = gradient_descent(single, [W[i] for W in layers], float(eta[i]), 40, [0, 1, 17, 40])
        assert_member_is(stack, i, run)
        np.testing.assert_array_equal(stack.times[(slice(None), *i)], run.times)
        np.testing.assert_array_equal(stack.final[i], run.final)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_common_to_a_stack_is_given_once(make_target, rng, kind):
    # One start with step sizes (3, 1), or one layer for all, stands for its copies.
    loss, (lower, upper) = make_loss(kind, make_target(SPECTRUM)), random_layers(rng, (4, 4, 4))
    eta = step_size(kind) * np.array([[0.5], [1], [1.5]])
    once = gradient_descent(loss, [lower, np.stack([upper, 2 * upper])], eta, 20)
    copies = gradient_descent(
        loss,
        [np.tile(lower, (3, 2, 1, 1)), np.tile([upper, 2 * upper], (3, 1, 1, 1))],
        np.tile(eta, (1, 2)),
        20,
    )
    assert once.loss.shape == (21, 3, 2)
    for i in np.ndindex(3, 2):
        single = gradient_descent(loss, [lower, (1 + i[1]) * upper], eta[i[0], 0], 20)
        assert_member_is(once, i, single)
        assert_member_is(copies, i, single)


# --- Records ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [(6, 4), (4, 4, 4), (5, 2, 6, 4)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_belong_to_the_weights_before_their_step(make_target, rng, kind, widths):
    # Row s is what a run of s steps ends with: loss, L − L*, (Σ_j ‖∂L/∂W_j‖²)^{1/2}, imbalance and F Fᵀ = S.
    loss, layers, steps = make_loss(kind, make_target(SPECTRUM)), random_layers(rng, widths), [0, 1, 2, 13, 30]
    eta = step_size(kind)
    run = gradient_descent(loss, layers, eta, 30, steps)
    assert run.steps.tolist() == steps
    np.testing.assert_array_equal(run.times, eta * np.array(steps))
    for i, step in enumerate(steps):
        stopped = DeepLinearNetwork(gradient_descent(loss, layers, eta, step).layers)
        W = stopped.end_to_end()
        gradients = stopped.layer_gradients(loss.gradient(W))
        assert run.loss[i] == pytest.approx(loss.value(W), rel=1e-12)
        assert run.excess[i] == pytest.approx(loss.value(W) - loss.minimum_value(min(widths)), rel=1e-10)
        assert run.gradient_norm[i] == pytest.approx(np.sqrt(sum(np.sum(g**2) for g in gradients)), rel=1e-11)
        assert run.balancedness[i] == pytest.approx(stopped.balancedness(), rel=1e-12)
        np.testing.assert_allclose(run.factors[i] @ run.factors[i].T, W @ W.T, rtol=0, atol=1e-13)
    np.testing.assert_allclose(run.final, run.factors[-1] @ run.factors[-1].T, rtol=0, atol=1e-13)
    np.testing.assert_allclose(run.layers[0], stopped.layers[0], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("n_steps", "expected"),
    [(0, [0]), (7, range(8)), (100, range(101)), (300, range(0, 301, 3)), (1234, None)],
)
def test_default_rows_are_about_a_hundred_from_start_to_end(n_steps, expected):
    steps = gradient_descent(BuresWasserstein([[1.0]]), [[[1.5]]], 1e-3, n_steps).steps
    if expected is None:
        assert (steps[0], steps[-1], len(steps)) == (0, n_steps, 101)
        assert set(np.diff(steps)) == {12, 13}
    else:
        assert steps.tolist() == list(expected)


def test_recording_does_not_steer_the_run(make_target, rng):
    loss, layers = BuresWasserstein(make_target(SPECTRUM), 0.2), random_layers(rng, (5, 3, 4))
    seldom, often = (gradient_descent(loss, layers, 0.02, 50, steps) for steps in ([20], range(51)))
    none = gradient_descent(loss, layers, 0.02, 50, np.array([], dtype=int))
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(seldom, name)[0], getattr(often, name)[20])
        assert len(getattr(none, name)) == len(none.steps) == len(none.times) == 0
    for one, two, three in zip(seldom.layers, often.layers, none.layers, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)


@pytest.mark.parametrize("n_steps", [0, 20])
@pytest.mark.parametrize("widths", [(4, 4), (5, 3, 4)], ids=str)
def test_input_layers_are_left_alone(make_target, rng, widths, n_steps):
    layers = random_layers(rng, widths)
    before = [W.copy() for W in layers]
    run = gradient_descent(BuresWasserstein(make_target(SPECTRUM)), layers, 0.02, n_steps)
    for W, copy, final in zip(layers, before, run.layers, strict=True):
        np.testing.assert_array_equal(W, copy)
        assert not np.shares_memory(W, final)


@pytest.mark.parametrize("kind", KINDS)
def test_no_steps_give_one_row_and_the_same_layers(make_target, rng, kind):
    loss, layers = make_loss(kind, make_target(SPECTRUM)), random_layers(rng, (5, 3, 4))
    run = gradient_descent(loss, layers, 0.02, 0)
    assert (run.steps.tolist(), run.times.tolist(), run.last_step) == ([0], [0], 0)
    assert run.stop_reason == StopReason.STEP_BUDGET
    assert run.loss.item() == pytest.approx(loss.value(product(layers)), rel=1e-13)
    for W, final in zip(layers, run.layers, strict=True):
        np.testing.assert_allclose(final, W, rtol=0, atol=1e-15)


def test_a_network_is_as_good_as_its_layers(make_target, rng):
    loss, network = BuresWasserstein(make_target(SPECTRUM)), DeepLinearNetwork(random_layers(rng, (5, 3, 4)))
    runs = [gradient_descent(loss, layers, 0.02, 10) for layers in (network, network.layers, tuple(network.layers))]
    for run in runs[1:]:
        for one, two in zip(runs[0].layers, run.layers, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("batch", [(), (3,)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_float32_stays_float32(make_target, rng, kind, batch):
    # … and follows the float64 run to rounding, 1e-5.
    covariance = np.broadcast_to(make_target(SPECTRUM), (*batch, 4, 4))
    layers = random_layers(rng, (5, 2, 6, 4), batch)
    eta = np.full(batch, step_size(kind))
    double = gradient_descent(make_loss(kind, covariance), layers, eta, 50)
    assert {W.dtype for W in double.layers} == {np.dtype(np.float64)}
    for target in (covariance.astype(np.float32), covariance):
        single = gradient_descent(make_loss(kind, target), [W.astype(np.float32) for W in layers], eta, 50)
        assert {W.dtype for W in single.layers} == {np.dtype(np.float32)}
        for one, two in zip(single.layers, double.layers, strict=True):
            np.testing.assert_allclose(one, two, rtol=0, atol=1e-5)


# --- How a run ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_run_ends_on_the_step_budget(make_target, rng, kind):
    run = gradient_descent(make_loss(kind, make_target(SPECTRUM)), random_layers(rng, (4, 4, 4)), 0.01, 33)
    assert (run.stop_reason, run.last_step, run.steps[-1]) == (StopReason.STEP_BUDGET, 33, 33)
    assert isinstance(run.stop_reason, StopReason)


@pytest.mark.parametrize("kind", KINDS)
def test_run_ends_where_the_excess_reaches_the_tolerance(make_target, rng, kind):
    # Looked at every 10th step: L − L* ≤ 1e-6 there, and not 10 steps before. That row is recorded, with its weights.
    loss, layers = make_loss(kind, make_target(SPECTRUM)), random_layers(rng, (5, 2, 6, 4))
    eta = 2 * step_size(kind)
    run = gradient_descent(loss, layers, eta, 5000, [0], excess_tolerance=1e-6)
    end = int(run.last_step)
    assert run.stop_reason == StopReason.CONVERGED
    assert run.steps.tolist() == [0, end]
    assert end % CHECK_INTERVAL == 0
    before = gradient_descent(loss, layers, eta, end, [end - CHECK_INTERVAL, end])
    assert before.excess[1] == run.excess[-1] <= 1e-6 < before.excess[0]
    np.testing.assert_allclose(run.factors[-1] @ run.factors[-1].T, run.final, rtol=0, atol=1e-14)
    for one, two in zip(run.layers, before.layers, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("n_steps", "record_steps", "end"), [(99, range(100), 33), (99, [0], 40), (99, [0, 34], 34), (33, [0], 33)], ids=str
)
def test_convergence_is_looked_for_at_recorded_steps_and_at_the_last(make_target, rng, n_steps, record_steps, end):
    # With the excess of step 33 as tolerance: ≤ holds there, to the bit, and not before.
    loss, layers = BuresWasserstein(make_target(SPECTRUM)), random_layers(rng, (4, 4, 4))
    excess = gradient_descent(loss, layers, 0.02, 33, range(34)).excess
    assert (np.diff(excess) < 0).all()
    run = gradient_descent(loss, layers, 0.02, n_steps, record_steps, excess_tolerance=excess[33])
    assert (run.stop_reason, run.last_step, run.steps[-1]) == (StopReason.CONVERGED, end, end)
    assert run.steps.tolist() == sorted({step for step in record_steps if step <= end} | {end})


def test_start_within_the_tolerance_takes_no_step(rng):
    layers = [np.diag(np.sqrt(SPECTRUM))]
    run = gradient_descent(BuresWasserstein(np.diag(SPECTRUM)), layers, 0.02, 5, [3], excess_tolerance=1e-20)
    assert (run.stop_reason, run.last_step, run.steps.tolist()) == (StopReason.CONVERGED, 0, [0])
    np.testing.assert_allclose(run.layers[0], layers[0], rtol=1e-15)


def test_without_a_tolerance_a_run_goes_on_at_the_minimum():
    # excess_tolerance = 0 is never reached, not even where L − L* is exactly 0.
    run = gradient_descent(BuresWasserstein([[1.0]]), [[[1.0]]], 0.1, 20)
    np.testing.assert_array_equal(run.excess, 0)
    assert (run.stop_reason, run.last_step, len(run.steps)) == (StopReason.STEP_BUDGET, 20, 21)


@pytest.mark.parametrize(
    ("dtype", "eta"), [(np.float32, 2.5), (np.float64, 2.5), (np.float32, 1e30), (np.float64, 1e200)]
)
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_run_that_diverges_ends_without_noise(rng, kind, depth, dtype, eta):
    # DIVERGED at the first step with an entry of W beyond 1e8 max(√λ_1, |W(0)|) or not finite; finite rows before it.
    loss = make_loss(kind, np.diag(SPECTRUM).astype(dtype))
    layers = [W.astype(dtype) for W in random_layers(rng, (4,) * (depth + 1))]
    limit = 1e8 * max(np.sqrt(SPECTRUM[0]), np.abs(product(layers)).max())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = gradient_descent(loss, layers, eta, 1000, range(1001))
        end = int(run.last_step)
        before = gradient_descent(loss, layers, eta, end - 1, [end - 1])
    assert run.stop_reason == StopReason.DIVERGED
    assert run.steps.tolist() == list(range(end))
    assert all(np.isfinite(getattr(run, name)).all() for name in COLUMNS)
    with np.errstate(all="ignore"):
        assert not np.abs(product(run.layers)).max() <= limit  # NaN too
    assert before.stop_reason == StopReason.STEP_BUDGET
    assert np.abs(product(before.layers)).max() <= limit


def test_every_run_has_its_own_limit():
    # n = N = 1, ε = 0: |w| ← |w − 2η (w − √λ)|, by 4 a step for η = 5/2, up to 1e8 max(√λ, w_0) and never beyond the
    # fourth root of the largest float: the larger start and target, the more steps. The first run ends long before.
    starts, roots = [1.0, 2.0, 1e6, 2.0, 2.0, 1e74], [1.0, 1.0, 1.0, 1.0, 1e3, 1.0]
    eta = [0.5, 2.5, 2.5, 0.1, 2.5, 2.5]
    loss = BuresWasserstein(np.reshape(roots, (6, 1, 1)) ** 2)
    stack = gradient_descent(loss, [np.reshape(starts, (6, 1, 1))], eta, 60, excess_tolerance=1e-20)
    assert stack.stop_reason.tolist() == ["converged", "diverged", "diverged", "step budget", "diverged", "diverged"]
    for i in (1, 2, 4, 5):
        w, steps = starts[i], 0
        while w <= min(1e8 * max(starts[i], roots[i]), np.finfo(float).max ** 0.25):
            w, steps = abs(w - 5 * (w - roots[i])), steps + 1
        assert stack.last_step[i] == steps


@pytest.mark.parametrize("targets", ["one", "stack"])
@pytest.mark.parametrize("kind", KINDS)
def test_runs_of_a_stack_end_on_their_own(make_target, rng, kind, targets):
    # Two converge (at different steps), one diverges, three use their budget: each as if it were alone.
    shape = (2, 3) if targets == "stack" else ()
    covariances = np.stack([make_target(SPECTRUM, seed) for seed in range(6)]).reshape(2, 3, 4, 4)
    covariances = covariances if shape else covariances[0, 0]
    layers = [np.tile(W, (2, 3, 1, 1)) for W in random_layers(rng, (5, 3, 4))]
    eta = step_size(kind) * np.array([[0.05, 6, 200], [0.1, 3, 0.15]])
    options = {"record_steps": [0, 2, 7, 100, 400], "excess_tolerance": 1e-2}
    stack = gradient_descent(make_loss(kind, covariances), layers, eta, 400, **options)
    reasons = [["step budget", "converged", "diverged"], ["step budget", "converged", "step budget"]]
    assert stack.stop_reason.tolist() == reasons
    assert stack.last_step[0, 1] < stack.last_step[1, 1] < 400
    assert set(stack.steps) == {0, 2, 7, 100, 400, stack.last_step[0, 1], stack.last_step[1, 1]}
    for i in np.ndindex(2, 3):
        loss = make_loss(kind, covariances[i] if shape else covariances)
        assert_member_is(stack, i, gradient_descent(loss, [W[i] for W in layers], float(eta[i]), 400, **options))


# --- Bad input --------------------------------------------------------------------------------------------------

LAYERS = [np.ones((3, 5)), np.eye(3)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": []}, r"layers must hold at least one matrix"),
        ({"layers": [np.ones((2, 5)), np.eye(3)]}, r"layers must chain: layer 2 has 3 columns, but layer 1 has 2 rows"),
        ({"layers": [np.eye(3), np.ones((2, 3))]}, r"layers must have 3 rows, as many as the covariance, not 2"),
        ({"layers": [np.ones((3, 5)), np.diag([1, np.nan, 1])]}, r"layer 2 must be finite, but it holds 1 NaN"),
        ({"layers": [np.diag([1, np.inf, 1])]}, r"layer 1 must be finite, but it holds 1 NaN or infinite"),
        ({"layers": [np.ones((3, 0))]}, r"layer 1 must be a non-empty array .* \(3, 0\)"),
        ({"layers": [np.ones(3)]}, r"layer 1 must be .* at least 2 axes, not of shape \(3,\)"),
        ({"layers": [np.eye(3) * 1j]}, r"layer 1 must hold real numbers, not complex128"),
        ({"layers": [1e160 * np.eye(3)] * 2}, r"layers must have a product with entries of at most 1e\+77, not inf"),
        (
            {"layers": [np.full((3, 3), 1e10, dtype=np.float32)]},
            r"layers must have a product with entries of at most 4e\+09, not 1e\+10",
        ),
        ({"step_size": 0}, r"step_size must be a finite number > 0, not 0"),
        ({"step_size": -0.1}, r"step_size must be a finite number > 0, not -0.1"),
        ({"step_size": np.nan}, r"step_size must be a finite number > 0, not nan"),
        ({"step_size": np.inf}, r"step_size must be a finite number > 0, not inf"),
        ({"step_size": "0.1"}, r"step_size must be a finite number > 0, not '0.1'"),
        ({"step_size": None}, r"step_size must be a finite number > 0, not None"),
        ({"step_size": True}, r"step_size must be a finite number > 0, not True"),
        ({"step_size": [0.1, -0.1]}, r"step_size must be a finite number > 0, not \[0.1, -0.1\]"),
        (
            {"layers": [np.ones((2, 3, 3))], "step_size": [0.1] * 3},
            r"layers, step_size and loss must stack alike, not as \(2,\), \(3,\), \(\)",
        ),
        ({"layers": [np.ones((2, 3, 3)), np.ones((3, 3, 3))]}, r"must stack alike, not as \(2,\), \(3,\), \(\)"),
        (
            {"loss": Frobenius(np.ones((2, 1, 1)) * np.eye(3)), "layers": [np.ones((3, 3, 3))]},
            r"must stack alike, not as \(3,\), \(\), \(2,\)",
        ),
        (
            {"loss": Frobenius(np.ones((2, 1, 1)) * np.eye(3)), "layers": [np.ones((3, 2, 3, 3))]},
            r"loss must have one target or one for each run, \(3, 2\), not a stack of shape \(2,\)",
        ),
        ({"n_steps": -1}, r"n_steps must be an integer ≥ 0, not -1"),
        ({"n_steps": 1.5}, r"n_steps must be an integer ≥ 0, not 1.5"),
        ({"n_steps": 10.0}, r"n_steps must be an integer ≥ 0, not 10.0"),
        ({"n_steps": "10"}, r"n_steps must be an integer ≥ 0, not '10'"),
        ({"n_steps": None}, r"n_steps must be an integer ≥ 0, not None"),
        ({"record_steps": [-1, 5]}, r"record_steps must be integers between 0 and n_steps = 10, not \[-1, 5\]"),
        ({"record_steps": [5, 11]}, r"record_steps must be integers between 0 and n_steps = 10, not \[5, 11\]"),
        ({"record_steps": [0.0, 5.0]}, r"record_steps must be integers between .* not \[0.0, 5.0\]"),
        ({"record_steps": [[0, 5]]}, r"record_steps must be integers between .* not \[\[0, 5\]\]"),
        ({"record_steps": 5}, r"record_steps must be integers between .* not 5"),
        ({"record_steps": "all"}, r"record_steps must be integers between .* not 'all'"),
        ({"record_steps": [5, 3]}, r"record_steps must be increasing, not \[5, 3\]"),
        ({"record_steps": [3, 3]}, r"record_steps must be increasing, not \[3, 3\]"),
        ({"record_steps": [2, 20, 4]}, r"record_steps must be .* not \[2, 20, 4\]"),
        ({"excess_tolerance": -1e-9}, r"excess_tolerance must be a finite number ≥ 0, not -1e-09"),
        ({"excess_tolerance": np.nan}, r"excess_tolerance must be a finite number ≥ 0, not nan"),
        ({"excess_tolerance": np.inf}, r"excess_tolerance must be a finite number ≥ 0, not inf"),
    ],
)
def test_bad_input_is_refused_in_one_line(changes, message):
    arguments = {"loss": BuresWasserstein(np.eye(3)), "layers": LAYERS, "step_size": 0.1, "n_steps": 10}
    with pytest.raises(ValueError, match=message) as caught:
        gradient_descent(**{**arguments, **changes})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("epsilon", "bures_wasserstein_is_quicker"), [(0.0, True), (0.9, False)])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_which_loss_needs_fewer_steps_turns_with_epsilon(depth, epsilon, bures_wasserstein_is_quicker):
    """At half the largest stable step, to 1e-8 tr Σ0, from one balanced start (docs/paper.md section 9)."""
    spectrum = np.array([3, 2, 1.5, 1.0])
    W = 0.1 * np.random.default_rng(0).standard_normal((4, 4))
    layers = DeepLinearNetwork.balanced(W, depth, 4).layers
    steps = []
    for loss in (BuresWasserstein(np.diag(spectrum), epsilon), Frobenius(np.diag(spectrum))):
        eta = stable_step(rates_at_minimum(loss, depth)) / 2
        run = gradient_descent(loss, layers, eta, 3000, excess_tolerance=1e-8 * spectrum.sum())
        assert run.stop_reason == StopReason.CONVERGED
        steps.append(run.steps[-1])
    assert (steps[0] < steps[1]) == bures_wasserstein_is_quicker
    if epsilon:
        measured = {1: (43, 34), 2: (539, 302), 3: (1491, 875)}[depth]
        # a run is checked every CHECK_INTERVAL steps
        assert all(0 <= found - counted <= CHECK_INTERVAL for found, counted in zip(steps, measured, strict=True))
